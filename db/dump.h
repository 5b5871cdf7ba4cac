/* The state as the reference's database file: XML that its tools read. One view, in pieces.
 *
 * Manifest {schema_major_vsn, schema_minor_vsn, generation_count: the log index}; one table per
 * class that the reference stores; of volatile classes without rows. Values in the reference's text
 * form, spaces and line ends behind its private escape. What only we have (internal classes and
 * fields) is not in it; secrets are.
 * Source: spec/database.md 1.1 and 1.2; xen-api, db_xml.ml and xml_spaces.ml.
 */
#pragma once

#include "db/view.h"

enum { DB_DUMP_PIECE = 64 << 10 };

/* Calls put with pieces of DB_DUMP_PIECE bytes (a larger one where a single row is; the last is
 * smaller) until it returns what is not 0. That, or 0. Any thread; seconds on large pools. */
int db_dump(const struct db_view *view, int (*put)(void *arg, const void *p, size_t n), void *arg);

/* The same into a file. 0 or ERR_IO with errno. */
int db_dump_file(const struct db_view *view, int fd);
