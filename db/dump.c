/* See dump.h; and the dumps kept beside the projection: DIR/dumps/hourly-TIME.xml, daily-TIME.xml.
 */
#include "db/dump.h"
#include "db/store_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of the reference's schema that our model is made from. */
enum { SCHEMA_MAJOR = 5, SCHEMA_MINOR = 909 };

struct sink {
	struct buf b;
	int (*put)(void *arg, const void *p, size_t n);
	void *arg;
	int rc;
};

static void flush(struct sink *out, size_t at_least)
{
	if (out->rc == 0 && out->b.len >= at_least && out->b.len > 0) {
		out->rc = out->put(out->arg, out->b.data, out->b.len);
		out->b.len = 0;
	}
}

/* The reference's escape first, then XML's. */
static void put_attribute(struct buf *out, const char *name, const char *value)
{
	static const struct {
		char c;
		const char *text;
	} escapes[] = { { ' ', "%." }, { '\t', "%t" }, { '\n', "%n" }, { '\r', "%r" },
		{ '%', "%%" }, { '&', "&amp;" }, { '<', "&lt;" }, { '>', "&gt;" },
		{ '"', "&quot;" } };

	buf_printf(out, " %s=\"", name);
	for (; *value; value++) {
		const char *text = NULL;

		for (size_t i = 0; i < ARRAY_LEN(escapes) && text == NULL; i++)
			if (*value == escapes[i].c)
				text = escapes[i].text;
		if (text != NULL)
			buf_puts(out, text);
		else
			buf_put(out, value, 1);
	}
	buf_puts(out, "\"");
}

static struct val many(
	const struct db_view *view, const struct db_row *row, int relation, struct arena *a)
{
	struct db_cursor c = db_rows_related(view, relation, db_row_ref(row));
	const struct db_row *other;
	struct val v = val_set();

	while ((other = db_next(&c)) != NULL)
		val_set_push(a, &v, val_string(db_row_ref(other)));
	return v;
}

static struct val dumped(
	const struct db_view *view, const struct db_row *row, unsigned field, struct arena *a)
{
	const struct model_field *f = &model_classes[db_row_class(row)].fields[field];

	if (f->derived >= 0)
		return many(view, row, f->derived, a);
	return f->computed ? f->initial : db_row_field(row, (int)field, a);
}

static void put_row(struct sink *out, const struct db_view *view, const struct db_row *row)
{
	const struct model_class *c = &model_classes[db_row_class(row)];
	struct buf text = { 0 };
	struct arena a;

	arena_init(&a);
	buf_puts(&out->b, "<row");
	put_attribute(&out->b, "ref", db_row_ref(row));
	buf_printf(&out->b, " __ctime=\"%llu\" __mtime=\"%llu\"",
		(unsigned long long)db_row_created(row), (unsigned long long)db_row_modified(row));
	put_attribute(&out->b, "_ref", db_row_ref(row));
	for (unsigned i = 0; i < c->n_fields; i++) {
		struct val v;

		if (c->fields[i].internal || c->fields[i].removed)
			continue;
		v = dumped(view, row, i, &a);
		text.len = 0;
		val_text(&text, &v);
		put_attribute(&out->b, c->fields[i].column, buf_text(&text));
	}
	buf_puts(&out->b, "/>");
	buf_fini(&text);
	arena_fini(&a);
}

static void put_table(struct sink *out, const struct db_view *view, int class_id)
{
	const struct model_class *c = &model_classes[class_id];
	struct db_cursor cursor = db_rows(view, class_id);
	const struct db_row *row;

	if (c->table == MODEL_TABLE_NONE || c->table == MODEL_TABLE_INTERNAL)
		return;
	buf_printf(&out->b, "<table name=\"%s\">", c->name);
	while (c->table == MODEL_TABLE_RECORDS && out->rc == 0 &&
		(row = db_next(&cursor)) != NULL) {
		put_row(out, view, row);
		flush(out, DB_DUMP_PIECE);
	}
	buf_puts(&out->b, "</table>");
}

int db_dump(const struct db_view *view, int (*put)(void *arg, const void *p, size_t n), void *arg)
{
	struct sink out = { .put = put, .arg = arg };

	buf_printf(&out.b,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<database><manifest>"
		"<pair key=\"schema_major_vsn\" value=\"%d\"/>"
		"<pair key=\"schema_minor_vsn\" value=\"%d\"/>"
		"<pair key=\"generation_count\" value=\"%llu\"/></manifest>",
		SCHEMA_MAJOR, SCHEMA_MINOR, (unsigned long long)db_view_index(view));
	for (int c = 0; c < MODEL_CLASS_COUNT; c++)
		put_table(&out, view, c);
	buf_puts(&out.b, "</database>\n");
	flush(&out, 0);
	buf_fini(&out.b);
	return out.rc;
}

static int put_file(void *arg, const void *p, size_t n)
{
	const int *fd = arg;
	ssize_t r;

	for (size_t done = 0; done < n; done += (size_t)r) {
		r = write(*fd, (const char *)p + done, n - done);
		if (r < 0 && errno == EINTR)
			r = 0;
		else if (r <= 0)
			return ERR_IO;
	}
	return 0;
}

int db_dump_file(const struct db_view *view, int fd)
{
	return db_dump(view, put_file, &fd);
}

/* Dumps that are kept. Names sort as their times; a clock that was wrong makes names that are
 * wrong, never more files or none. */

struct kept {
	const char *prefix;
	unsigned most;
	int64_t every_s;
};

static const struct kept hourly = { "hourly-", DUMPS_HOURLY, 3600 },
			 daily = { "daily-", DUMPS_DAILY, 86400 };

struct found {
	unsigned n;
	uint64_t bytes;
	char oldest[64]; /* name */
	int64_t newest_s;
};

static void look(const char *dir, const struct kept *k, struct found *out)
{
	struct dirent **names = NULL;
	int n = scandir(dir, &names, NULL, alphasort);
	char path[900], time[64];
	struct stat st;

	*out = (struct found){ .newest_s = INT64_MIN };
	for (int i = 0; i < n; i++) {
		const char *name = names[i]->d_name;

		snprintf(path, sizeof path, "%s/%s", dir, name);
		if (strncmp(name, k->prefix, strlen(k->prefix)) == 0 &&
			strlen(name) < sizeof out->oldest && stat(path, &st) == 0) {
			if (out->n++ == 0)
				strcpy(out->oldest, name);
			snprintf(time, sizeof time, "%s", name + strlen(k->prefix));
			time[strcspn(time, ".")] = 0;
			if (!val_datetime_parse(time, &out->newest_s))
				out->newest_s = INT64_MIN;
			out->bytes += (uint64_t)st.st_size;
		}
		free(names[i]);
	}
	free(names);
}

static void prune(const char *dir, const struct kept *k)
{
	char path[700];
	struct found f;

	for (look(dir, k, &f); f.n > k->most || (f.n > 1 && f.bytes > DUMPS_BYTES);
		look(dir, k, &f)) {
		snprintf(path, sizeof path, "%s/%s", dir, f.oldest);
		if (unlink(path) != 0)
			return;
	}
}

/* Names from the future say nothing. */
static bool is_due(const char *dir, const struct kept *k, int64_t now)
{
	struct found f;

	look(dir, k, &f);
	return f.newest_s == INT64_MIN || f.newest_s > now || now - f.newest_s >= k->every_s;
}

static int write_new(const struct store_config *cfg, const char *dir, const char *path)
{
	char temporary[700];
	struct db_view view;
	int fd, rc;

	snprintf(temporary, sizeof temporary, "%s/new", dir);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return ERR_IO;
	db_view_pin(cfg->db, &view);
	rc = db_dump_file(&view, fd);
	db_view_unpin(&view);
	if (rc == 0 && fsync(fd) != 0)
		rc = ERR_IO;
	if (close(fd) != 0 || rc != 0 || rename(temporary, path) != 0) {
		rc = errno;
		unlink(temporary);
		errno = rc;
		return ERR_IO;
	}
	return 0;
}

static void name_of(const char *dir, const struct kept *k, int64_t now, char out[700])
{
	char date[VAL_DATETIME_MAX];

	val_datetime_print(now, date);
	snprintf(out, 700, "%s/%s%s.xml", dir, k->prefix, date);
}

uint64_t db__dumps_keep(const struct store_config *cfg)
{
	int64_t now = env_wall_s(cfg->env);
	char dir[600], path[700], other[700];

	snprintf(dir, sizeof dir, "%s/dumps", cfg->dir);
	if (!is_due(dir, &hourly, now))
		return DUMPS_LOOK_MS;
	name_of(dir, &hourly, now, path);
	if ((mkdir(dir, 0700) != 0 && errno != EEXIST) || write_new(cfg, dir, path) != 0) {
		COUNT(cfg->env, dump_failures);
		log_err(cfg->env, "event=dump_failed file=%s why=\"%s\"", path, strerror(errno));
		return DUMPS_RETRY_MS;
	}
	COUNT(cfg->env, dumps_written);
	name_of(dir, &daily, now, other);
	if (is_due(dir, &daily, now) && link(path, other) != 0 && errno != EEXIST)
		log_err(cfg->env, "event=dump_failed file=%s why=\"%s\"", other, strerror(errno));
	prune(dir, &hourly);
	prune(dir, &daily);
	/* by our own clock: what the other one says may be anything */
	return (uint64_t)hourly.every_s * 1000;
}
