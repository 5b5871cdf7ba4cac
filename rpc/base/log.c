#include "rpc/base/log.h"
#include "rpc/base/env.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOG_LINE_MAX = 2048 };

static const char *const level_names[] = { "err", "warn", "info", "debug" };

void log_write(struct env *env, enum log_level level, const char *fmt, ...)
{
	char line[LOG_LINE_MAX];
	uint64_t us;
	va_list ap;
	int n;

	if (level > env->log.level)
		return;
	us = env_now_us(env);
	n = snprintf(line, sizeof line, "t=%llu.%06llu level=%s at=%s ",
		(unsigned long long)(us / 1000000), (unsigned long long)(us % 1000000),
		level_names[level], env->name);
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
	va_end(ap);
	/* what came from outside must not start a line of its own */
	for (char *p = line; *p; p++)
		if (*p == '\n' || *p == '\r')
			*p = ' ';
	strcat(line, "\n");
	if (write(STDERR_FILENO, line, strlen(line)) < 0)
		return; /* nobody left to tell */
}

int log_level_parse(const char *s)
{
	for (unsigned i = 0; i < ARRAY_LEN(level_names); i++)
		if (strcmp(s, level_names[i]) == 0)
			return (int)i;
	return -1;
}
