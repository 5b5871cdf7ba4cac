/* The first answer of event.from to a client that watches whole classes: all there is, in the order
 * of every answer (event_answer.c), but piece by piece (records.c), with nothing collected. The
 * cursors of the classes run by index; the next event is the least of their heads.
 */
#include "pool/event_priv.h"

#include <string.h>

struct head {
	struct db_cursor rows;
	const struct db_row *row; /* NULL: at its end */
};

struct everything {
	struct event_writer w;
	bool begun;
	char token[EVENT_TOKEN_LEN + 1];
	unsigned n;
	struct head heads[];
};

static bool is_before(const struct db_row *a, const struct db_row *b)
{
	bool first = db_row_class(a) == MODEL_CLASS_message;

	if (first != (db_row_class(b) == MODEL_CLASS_message))
		return first;
	return db_row_modified(a) != db_row_modified(b) ? db_row_modified(a) < db_row_modified(b)
							: strcmp(db_row_ref(a), db_row_ref(b)) < 0;
}

static const struct db_row *next_of(struct everything *e)
{
	struct head *least = NULL;
	const struct db_row *row;

	for (unsigned i = 0; i < e->n; i++)
		if (e->heads[i].row != NULL &&
			(least == NULL || is_before(e->heads[i].row, least->row)))
			least = &e->heads[i];
	if (least == NULL)
		return NULL;
	row = least->row;
	least->row = db_next(&least->rows);
	return row;
}

static bool put_everything(struct call *call, void *arg)
{
	struct everything *e = arg;
	enum rpc_codec codec = call->message.codec;
	const struct db_row *row;
	struct rpc_map m;

	if (!e->begun)
		event_writer_open(&e->w, false, codec, &call->text);
	e->begun = true;
	row = next_of(e);
	if (row == NULL) {
		event_writer_close(&e->w, &call->view, e->token);
		return false;
	}
	event_open(&m, &e->w.events,
		&(struct event_change){
			EVENT_ADD, db_row_modified(row), db_row_class(row), row, db_row_ref(row) },
		"0.0");
	pool_record(&call->view, row, codec, &call->text);
	rpc_map_close(&m);
	return true;
}

bool event_is_much(const struct event_watch *w, const struct db_view *view)
{
	uint64_t n = 0;

	for (int i = 0; i < MODEL_CLASS_COUNT; i++)
		n += w->classes[i] ? db_view_count(view, i) : 0;
	return w->n_objects == 0 && n > EVENT_SHARED_MAX;
}

int event_everything(struct call *call, const struct event_watch *w,
	const struct event_tokens *tokens, uint64_t numbers)
{
	struct event_position to = { .index = db_view_index(&call->view), .numbers = numbers };
	struct everything *e =
		arena_alloc(&call->arena, sizeof *e + MODEL_CLASS_COUNT * sizeof e->heads[0]);

	*e = (struct everything){ 0 };
	event_token_print(tokens, &to, e->token);
	for (int i = 0; i < MODEL_CLASS_COUNT; i++) {
		struct head *h = &e->heads[e->n];

		if (!w->classes[i])
			continue;
		h->rows = db_rows_modified(&call->view, i, 0);
		h->row = db_next(&h->rows);
		e->n += h->row != NULL;
	}
	return records_answer_by(call, put_everything, e);
}
