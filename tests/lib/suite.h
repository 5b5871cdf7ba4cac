/* One check suite per program. */
#pragma once

#include <check.h>
#include <stddef.h>

static inline int suite_run_as(enum fork_status how, const char *name, const TTest *const *tests,
	size_t n, double timeout_s)
{
	Suite *s = suite_create(name);
	TCase *c = tcase_create(name);
	SRunner *r;
	int failed;

	tcase_set_timeout(c, timeout_s);
	for (size_t i = 0; i < n; i++)
		tcase_add_test(c, tests[i]);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_set_fork_status(r, how);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed > 0;
}

/* Run the tests in this process; what main returns. */
static inline int suite_run(const char *name, const TTest *const *tests, size_t n, double timeout_s)
{
	return suite_run_as(CK_NOFORK, name, tests, n, timeout_s);
}

/* Each in a process of its own: what fails leaves nothing for the next, and a child that a test
 * has forked ends where it fails. */
static inline int suite_run_apart(
	const char *name, const TTest *const *tests, size_t n, double timeout_s)
{
	return suite_run_as(CK_FORK, name, tests, n, timeout_s);
}
