/* One line per event, key=value, to standard error (systemd keeps it). A line is one write: lines
 * never mix. Levels: err somebody must act, warn we coped, info a state changed, debug the rest. */
#pragma once

enum log_level { LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log {
	enum log_level level;
};

struct env;
void log_write(struct env *env, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define log_err(env, ...)   log_write(env, LOG_ERR, __VA_ARGS__)
#define log_warn(env, ...)  log_write(env, LOG_WARN, __VA_ARGS__)
#define log_info(env, ...)  log_write(env, LOG_INFO, __VA_ARGS__)
#define log_debug(env, ...) log_write(env, LOG_DEBUG, __VA_ARGS__)

/* "err", "warn", "info", "debug"; -1 when it is none of them. */
int log_level_parse(const char *s);
