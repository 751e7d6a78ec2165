/* One line an event, on stderr (util.h): "2026-11-21T10:00:00Z skiffd info: ...". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

static char program[32] = "skiff";
static enum skf_level max_level = SKF_LOG_WARN;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

void skf_log_open(const char *name, enum skf_level max)
{
    (void)snprintf(program, sizeof program, "%s", name);
    max_level = max;
    const char *env = getenv("SKF_LOG");
    for (size_t i = 0; env && i < SKF_COUNT(level_names); i++)
        if (strcmp(env, level_names[i]) == 0)
            max_level = (enum skf_level)i;
}

void skf_log(enum skf_level l, const char *fmt, ...)
{
    if (l > max_level)
        return;
    char line[1024], when[21];
    skf_time_text(skf_now_unix(), when);
    int at = snprintf(line, sizeof line, "%s %s %s: ", when, program, level_names[l]);
    va_list ap;
    va_start(ap, fmt);
    int more = vsnprintf(line + at, sizeof line - (size_t)at - 1, fmt, ap);
    va_end(ap);
    size_t n = (size_t)at + (more < 0 ? 0 : (size_t)more);
    if (n > sizeof line - 2)
        n = sizeof line - 2;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[n] = '\n';
    ssize_t put = write(STDERR_FILENO, line, n + 1); /* one write, so that lines of two processes do not mix */
    (void)put;
}
