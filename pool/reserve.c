/* Memory set aside on hosts (pool.md 6.2): one row for each VM and host, made in the admission
 * entry under the precondition that the sum of all fits into the host, so any number of starts at
 * once never promise more than there is. A VM that migrates has two. The row belongs to the task
 * that made it until the host has written what is there; then to the VM, until it leaves.
 *
 * While the pool's schema is older than the class nothing is set aside: then the agent's own check
 * is all there is.
 */
#include "pool/operation_priv.h"

#include <string.h>

static bool known(const struct db_view *view)
{
	return db_view_schema(view) >= model_classes[MODEL_CLASS__reservation].schema;
}

struct memory_need memory_need(const struct db_row *vm)
{
	int64_t over = db_row_i(vm, VM_memory_overhead);

	if (strcmp(db_row_s(vm, VM_power_state), "Suspended") == 0) { /* it needs what it had */
		over += db_row_i(vm, VM_memory_dynamic_max);
		return (struct memory_need){ over, over, over };
	}
	return (struct memory_need){ db_row_i(vm, VM_memory_dynamic_min) + over,
		db_row_i(vm, VM_memory_dynamic_max) + over,
		db_row_i(vm, VM_memory_static_max) + over };
}

/* Of all VMs; 0: not known. */
static int64_t usable(const struct db_view *view, const struct db_row *host)
{
	const struct db_row *member =
		db_view_get(view, MODEL_CLASS__member, db_row_s(host, HOST_uuid));
	int64_t total = member != NULL ? db_row_i(member, _MEMBER_memory) : 0;

	return total > 0 ? total - db_row_i(host, HOST_memory_overhead) : 0;
}

int64_t memory_free(const struct db_view *view, const struct db_row *host)
{
	int64_t most = usable(view, host);

	return most == 0 ? INT64_MAX
			 : most - db_sum_related(view, MODEL_RELATION__reservation_host,
					  db_row_ref(host), _RESERVATION_bytes);
}

static int64_t between(int64_t least, int64_t value, int64_t most)
{
	return value < least ? least : value > most ? most : value;
}

static int reserve(struct admit *ad, const struct db_row *vm, const struct db_row *host,
	struct memory_need need, struct err *err)
{
	struct val f[_RESERVATION_FIELD_COUNT] = { { .kind = VAL_VOID } };
	int64_t left = memory_free(ad->view, host), bytes;
	const char *ref = db_row_ref(host);

	if (need.least > left)
		return err_set(err, ERR_HOST_NOT_ENOUGH_FREE_MEMORY,
			arena_printf(ad->arena, "%lld", (long long)need.least),
			arena_printf(ad->arena, "%lld", (long long)(left < 0 ? 0 : left)), NULL);
	db_txn_set(ad->txn, MODEL_CLASS_VM, db_row_ref(vm), VM_scheduled_to_be_resident_on,
		val_string(ref));
	if (!known(ad->view))
		return 0;
	bytes = between(need.least, left, need.most);
	if (left != INT64_MAX)
		db_txn_need_sum(ad->txn, MODEL_RELATION__reservation_host, ref, _RESERVATION_bytes,
			bytes, usable(ad->view, host));
	f[_RESERVATION_host] = val_string(ref);
	f[_RESERVATION_VM] = val_string(db_row_ref(vm));
	f[_RESERVATION_bytes] = val_int(bytes);
	db_txn_create(ad->txn, MODEL_CLASS__reservation, ad->task, f);
	return 0;
}

int memory_reserve(
	struct admit *ad, const struct db_row *vm, const struct db_row *host, struct err *err)
{
	return reserve(ad, vm, host, memory_need(vm), err);
}

int memory_reserve_moving(struct admit *ad, const struct db_row *vm, const struct db_row *from,
	const struct db_row *host, struct err *err)
{
	struct memory_need need = memory_need(vm);
	int64_t has = memory_set_aside(ad->view, vm, from);

	if (has > 0)
		need.most = has + db_row_i(vm, VM_memory_overhead);
	if (need.least > need.most)
		need.least = need.most;
	return reserve(ad, vm, host, need, err);
}

void memory_give_back_elsewhere(
	struct db_txn *txn, const struct db_view *view, const struct db_row *task, const char *self)
{
	const struct db_row *row = db_view_get(view, MODEL_CLASS__reservation, db_row_ref(task));

	if (row != NULL && strcmp(db_row_s(row, _RESERVATION_host), self) != 0)
		db_txn_delete(txn, MODEL_CLASS__reservation, db_row_ref(task));
}

void memory_give_back(struct db_txn *txn, const struct db_view *view, const struct db_row *task)
{
	const char *vm = db_row_s(task, TASK_subject_ref);
	const struct db_row *row = db_view_get(view, MODEL_CLASS__reservation, db_row_ref(task));

	if (row != NULL)
		db_txn_delete(txn, MODEL_CLASS__reservation, db_row_ref(task));
	if (db_view_get(view, MODEL_CLASS_VM, vm) != NULL)
		db_txn_set(txn, MODEL_CLASS_VM, vm, VM_scheduled_to_be_resident_on,
			val_string(NULL_REF));
}

static struct db_cursor of_vm(const struct db_view *view, const char *vm)
{
	return db_rows_related(view, MODEL_RELATION__reservation_VM, vm);
}

void memory_drop(struct db_txn *txn, const struct db_view *view, const char *vm, const char *host)
{
	struct db_cursor c = of_vm(view, vm);
	const struct db_row *row;

	while ((row = db_next(&c)) != NULL)
		if (strcmp(db_row_s(row, _RESERVATION_host), host) == 0)
			db_txn_delete(txn, MODEL_CLASS__reservation, db_row_ref(row));
}

static const struct db_row *row_of(
	const struct db_view *view, const struct db_row *vm, const struct db_row *host)
{
	struct db_cursor c = of_vm(view, db_row_ref(vm));
	const struct db_row *row;

	while (host != NULL && (row = db_next(&c)) != NULL)
		if (strcmp(db_row_s(row, _RESERVATION_host), db_row_ref(host)) == 0)
			return row;
	return NULL;
}

int memory_grow(struct admit *ad, const struct db_row *vm, const struct db_row *host,
	struct memory_need need, struct err *err)
{
	const struct db_row *row = row_of(ad->view, vm, host);
	int64_t has = row != NULL ? db_row_i(row, _RESERVATION_bytes) : 0,
		left = memory_free(ad->view, host), bytes;

	if (row == NULL || left == INT64_MAX)
		return 0; /* sizes are not known: the agent's own check is all there is */
	if (need.least > has + left)
		return err_set(err, ERR_HOST_NOT_ENOUGH_FREE_MEMORY,
			arena_printf(ad->arena, "%lld", (long long)need.least),
			arena_printf(ad->arena, "%lld", (long long)(has + left)), NULL);
	bytes = between(need.least, has + left, need.most);
	if (bytes <= has)
		return 0; /* less when the guest has given it back */
	db_txn_need_sum(ad->txn, MODEL_RELATION__reservation_host, db_row_ref(host),
		_RESERVATION_bytes, bytes - has, usable(ad->view, host));
	db_txn_need_version(
		ad->txn, MODEL_CLASS__reservation, db_row_ref(row), db_row_modified(row));
	db_txn_set(ad->txn, MODEL_CLASS__reservation, db_row_ref(row), _RESERVATION_bytes,
		val_int(bytes));
	return 0;
}

void memory_at_most(struct db_txn *txn, const struct db_view *view, const struct db_row *vm,
	const struct db_row *host, int64_t most)
{
	const struct db_row *row = row_of(view, vm, host);

	if (row != NULL && db_row_i(row, _RESERVATION_bytes) > most)
		db_txn_set(txn, MODEL_CLASS__reservation, db_row_ref(row), _RESERVATION_bytes,
			val_int(most));
}

void memory_left(struct db_txn *txn, const struct db_view *view, const char *vm, const char *host)
{
	struct db_cursor c = of_vm(view, vm);
	const struct db_row *row;

	while ((row = db_next(&c)) != NULL)
		if (strcmp(db_row_s(row, _RESERVATION_host), host) == 0 &&
			!task_pending(db_view_get(view, MODEL_CLASS_task, db_row_ref(row))))
			db_txn_delete(txn, MODEL_CLASS__reservation, db_row_ref(row));
}

int64_t memory_set_aside(
	const struct db_view *view, const struct db_row *vm, const struct db_row *host)
{
	const struct db_row *row = row_of(view, vm, host);

	return row != NULL ? db_row_i(row, _RESERVATION_bytes) - db_row_i(vm, VM_memory_overhead)
			   : 0;
}

bool memory_kept(const struct db_view *view, const char *vm, const char *host)
{
	struct db_cursor c = of_vm(view, vm);
	const struct db_row *row;

	if (!known(view))
		return true;
	while ((row = db_next(&c)) != NULL)
		if (strcmp(db_row_s(row, _RESERVATION_host), host) == 0)
			return true;
	return false;
}

void memory_keep(struct db_txn *txn, struct pool *pool, const struct db_view *view,
	const struct db_row *vm, const char *host)
{
	struct val f[_RESERVATION_FIELD_COUNT] = { { .kind = VAL_VOID } };
	char uuid[UUID_LEN + 1], ref[DB_REF_MAX + 1];

	if (memory_kept(view, db_row_ref(vm), host))
		return;
	pool_ref(pool, uuid, ref);
	f[_RESERVATION_host] = val_string(host);
	f[_RESERVATION_VM] = val_string(db_row_ref(vm));
	f[_RESERVATION_bytes] = val_int(memory_need(vm).most);
	db_txn_create(txn, MODEL_CLASS__reservation, ref, f);
}
