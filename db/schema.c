/* Which schema a pool may run: every member says in its row what its xpoold runs (pool/schema.c);
 * the active schema is raised to the newest that all of them run. Apply does the rest (op_raise).
 */
#include "db/txn.h"

unsigned db_schema_common(const struct db_view *view)
{
	struct db_cursor c = db_rows(view, MODEL_CLASS__member);
	const struct db_row *member;
	int64_t common = 0;

	for (unsigned n = 0; (member = db_next(&c)) != NULL; n++) {
		int64_t newest = db_row_i(member, _MEMBER_schema);

		common = n == 0 || newest < common ? newest : common;
	}
	return (unsigned)common;
}

bool db_schema_raise(const struct db_view *view, struct db_txn *txn)
{
	unsigned common = db_schema_common(view);
	struct db_cursor c = db_rows(view, MODEL_CLASS__member);
	const struct db_row *member;

	if (common <= db_view_schema(view) || common > MODEL_SCHEMA_VERSION)
		return false;
	/* none of them has taken its word back, as one does that starts an older version */
	while ((member = db_next(&c)) != NULL)
		db_txn_need_version(
			txn, MODEL_CLASS__member, db_row_ref(member), db_view_index(view));
	db_txn_raise(txn, common);
	txn->schema = db_view_schema(view);
	return true;
}
