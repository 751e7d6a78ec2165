/* Clocks (util.h). */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"

static _Atomic int64_t set_to;

void skf_clock_set(int64_t unix_seconds) { atomic_store(&set_to, unix_seconds); }

int64_t skf_now_unix(void)
{
    int64_t fixed = atomic_load(&set_to);
    if (fixed)
        return fixed;
    const char *env = getenv("SKF_NOW");
    if (env && *env) {
        char *end;
        errno = 0;
        long long v = strtoll(env, &end, 10);
        if (errno == 0 && *end == 0 && v > 0)
            return v;
    }
    return (int64_t)time(NULL);
}

uint64_t skf_now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void skf_sleep_ms(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        ;
}

/* Days since 1970-01-01 of a civil date and back: H. Hinnant, "chrono-compatible low-level date algorithms". */
static int64_t days_of(int64_t y, unsigned m, unsigned d)
{
    y -= m <= 2;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    unsigned yoe = (unsigned)(y - era * 400);
    unsigned doy = (153 * (m + (m > 2 ? -3u : 9u)) + 2) / 5 + d - 1;
    unsigned doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + (int64_t)doe - 719468;
}

void skf_time_text(int64_t unix_seconds, char out[21])
{
    int64_t s = unix_seconds < 0 ? 0 : unix_seconds > 253402300799 ? 253402300799 : unix_seconds;
    int64_t z = s / 86400 + 719468;
    int64_t era = z / 146097;
    unsigned doe = (unsigned)(z - era * 146097);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;
    unsigned d = doy - (153 * mp + 2) / 5 + 1;
    unsigned m = mp < 10 ? mp + 3 : mp - 9;
    unsigned y = (unsigned)(yoe + era * 400 + (m <= 2));
    unsigned t = (unsigned)(s % 86400);
    char full[64];
    (void)snprintf(full, sizeof full, "%04u-%02u-%02uT%02u:%02u:%02uZ", y, m, d, t / 3600, t / 60 % 60, t % 60);
    memcpy(out, full, 20);
    out[20] = 0;
}

enum skf_err skf_time_parse(const char *s, int64_t *unix_seconds)
{
    static const unsigned char month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    static const char form[] = "dddd-dd-ddTdd:dd:ddZ";
    unsigned v[6] = {0}; /* year, month, day, hour, minute, second */
    if (strlen(s) != sizeof form - 1)
        return SKF_ERR_FORMAT;
    for (unsigned i = 0, field = 0; form[i]; i++) {
        bool is_digit = s[i] >= '0' && s[i] <= '9';
        if (form[i] == 'd' ? !is_digit : s[i] != form[i])
            return SKF_ERR_FORMAT;
        if (is_digit)
            v[field] = v[field] * 10 + (unsigned)(s[i] - '0');
        else
            field++;
    }
    bool is_leap = (v[0] % 4 == 0 && v[0] % 100 != 0) || v[0] % 400 == 0;
    if (v[1] < 1 || v[1] > 12 || v[2] < 1 || v[2] > (unsigned)(month_days[v[1] - 1] + (v[1] == 2 && is_leap)))
        return SKF_ERR_FORMAT;
    if (v[3] > 23 || v[4] > 59 || v[5] > 60)
        return SKF_ERR_FORMAT;
    *unix_seconds = days_of(v[0], v[1], v[2]) * 86400 + v[3] * 3600 + v[4] * 60 + v[5];
    return SKF_OK;
}
