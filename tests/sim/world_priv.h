#pragma once

#include "rpc/base/stream_priv.h"
#include "tests/sim/world.h"

int wire_listen(struct listener *listener, const char *address);
void wire_unlisten(struct listener *listener);
int wire_connect(struct stream *stream, const char *address);
void wire_write(struct stream *stream, struct buf *bytes);
size_t wire_untaken(const struct stream *stream);
void wire_pause(struct stream *stream, bool paused);
void wire_close(struct stream *stream);
void wire_break_all(struct world *w, unsigned number);
void wire_fini(struct world *w);
