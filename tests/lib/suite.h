/* One check suite per program. */
#pragma once

#include <check.h>
#include <stddef.h>

/* Run the tests in this process; what main returns. */
static inline int suite_run(const char *name, const TTest *const *tests, size_t n, double timeout_s)
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
	srunner_set_fork_status(r, CK_NOFORK);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed > 0;
}
