/* pool/cli*: the tables say what is there. A member never asserts them, so this is where a wrong
 * word is found. */
#include "pool/cli_priv.h"
#include "tests/lib/suite.h"

#include <stdlib.h>
#include <string.h>

START_TEST(every_row_of_the_commands_fits_its_message)
{
	const char *wrong;
	struct arena a;

	for (unsigned i = 0; i < cli_n_commands; i++) {
		arena_init(&a);
		wrong = cli_command_wrong(&cli_commands[i], &a);
		ck_assert_msg(wrong == NULL, "%s: %s", cli_commands[i].name, wrong);
		if (i > 0)
			ck_assert_msg(strcmp(cli_commands[i - 1].name, cli_commands[i].name) < 0,
				"%s is out of order or twice", cli_commands[i].name);
		arena_fini(&a);
	}
}
END_TEST

START_TEST(a_wrong_row_is_found)
{
	static const struct cli_command rows[] = {
		{ "a", "VM.no_such_message", "@", CLI_VM, NULL, NULL },
		{ "a", "VM.pause", "@ more", CLI_VM, NULL, NULL },
		{ "a", "VM.pause", "", CLI_VM, NULL, NULL },
		{ "a", "VM.pause", "@", 0, NULL, NULL },
		{ "a", "VM.pause", "@", CLI_VM | CLI_HOST, NULL, NULL },
		{ "a", "VM.set_memory", "@ memory:", CLI_VM, NULL, NULL },
		{ "a", "VM.set_memory", "@ %pool", CLI_VM, NULL, NULL },
		{ "a", "VBD.create", "nonsense", 0, NULL, NULL },
		{ "a", "VM.pause|VM.set_memory", "@", CLI_VM, NULL, NULL },
		{ "a", "VM.pause", "@ +", CLI_VM, NULL, NULL },
	};
	struct arena a;

	arena_init(&a);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		ck_assert_msg(cli_command_wrong(&rows[i], &a) != NULL, "row %zu passes", i);
	arena_fini(&a);
}
END_TEST

START_TEST(every_word_of_the_classes_is_a_field)
{
	static const struct cli_class bad[] = {
		{ "vm", MODEL_CLASS_VM, "uuid nothing", "", "uuid" },
		{ "vm", MODEL_CLASS_VM, "uuid", "nothing=true", "uuid" },
		{ "vm", MODEL_CLASS_VM, "uuid", "", "uuid nothing" },
		{ "vm", MODEL_CLASS_VM, "uuid", "", "uuid x=metrics.nothing" },
		{ "vm", MODEL_CLASS_VM, "uuid", "", "uuid x=name_label.uuid" },
		{ "vm", MODEL_CLASS_VM, "uuid", "", "uuid uuid" },
	};
	struct cli_field *fields;
	const char *wrong;
	struct arena a;

	for (unsigned i = 0; i < cli_n_classes; i++) {
		arena_init(&a);
		wrong = cli_class_wrong(&cli_classes[i], &a);
		ck_assert_msg(wrong == NULL, "%s: %s", cli_classes[i].name, wrong);
		ck_assert_uint_gt(cli_fields(&cli_classes[i], &a, &fields), 0);
		ck_assert_str_eq(fields[0].name, "uuid");
		arena_fini(&a);
	}
	arena_init(&a);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		ck_assert_msg(cli_class_wrong(&bad[i], &a) != NULL, "class %zu passes", i);
	arena_fini(&a);
}
END_TEST

/* Everything of the model that clients can see can be seen here. */
START_TEST(no_field_of_the_model_is_missing)
{
	struct cli_field *fields;
	struct arena a;
	unsigned n;

	arena_init(&a);
	for (unsigned i = 0; i < cli_n_classes; i++) {
		const struct model_class *m = &model_classes[cli_classes[i].class_id];

		n = cli_fields(&cli_classes[i], &a, &fields);
		for (unsigned f = 0; f < m->n_fields; f++) {
			bool found = m->fields[f].internal;

			for (unsigned k = 0; k < n && !found; k++)
				found = fields[k].field[0] == (int)f && fields[k].n == 1;
			ck_assert_msg(
				found ||
					/* shown by what it leads to */
					strstr(cli_classes[i].order, m->fields[f].name) != NULL,
				"%s: no %s", cli_classes[i].name, m->fields[f].name);
		}
	}
	arena_fini(&a);
}
END_TEST

START_TEST(names_are_split_into_class_and_verb)
{
	const struct cli_class *c;
	const char *verb;

	ck_assert(cli_generated("vm-list", &c, &verb));
	ck_assert_str_eq(c->name, "vm");
	ck_assert(cli_generated("host-cpu-param-get", &c, &verb));
	ck_assert_str_eq(c->name, "host-cpu");
	ck_assert_str_eq(verb, "param-get");
	ck_assert(cli_generated("vm-group-list", &c, &verb));
	ck_assert(!cli_generated("list", &c, &verb));
	ck_assert(!cli_generated("-list", &c, &verb));
	ck_assert(!cli_generated("nothing-list", &c, &verb));
	ck_assert(!cli_generated("host-cpu-info", &c, &verb));
	ck_assert(!cli_generated("console-param-nothing", &c, &verb));
	/* nothing to set in it */
	ck_assert(!cli_generated("message-param-set", &c, &verb));
}
END_TEST

START_TEST(parameters_are_split_at_the_first_equal_sign)
{
	char text[] =
		"vm-start\nname-label=a=b\n--force\n-u\nroot\n--minimal\nx:y=1\nx:z=2\r\n\nlast=";
	struct arena a;
	struct cli cli = { .arena = &a };
	struct val map;

	arena_init(&a);
	ck_assert_int_eq(cli_params_parse(&cli, text), 0);
	ck_assert_str_eq(cli.command, "vm-start");
	ck_assert_str_eq(cli_get(&cli, "name-label"), "a=b");
	ck_assert(cli_get_bool(&cli, "force"));
	ck_assert(cli.minimal);
	ck_assert_str_eq(cli_get(&cli, "username"), "root");
	map = cli_get_map(&cli, "x");
	ck_assert_uint_eq(map.n, 2);
	ck_assert_str_eq(val_get_s(&map, "y"), "1");
	ck_assert_str_eq(cli_get(&cli, "last"), "");
	ck_assert_ptr_null(cli_get(&cli, "nothing"));
	arena_fini(&a);
	buf_fini(&cli.out);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = { every_row_of_the_commands_fits_its_message,
		a_wrong_row_is_found, every_word_of_the_classes_is_a_field,
		no_field_of_the_model_is_missing, names_are_split_into_class_and_verb,
		parameters_are_split_at_the_first_equal_sign };

	return suite_run("cli", tests, ARRAY_LEN(tests), 60);
}
