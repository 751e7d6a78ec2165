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

static bool is_digits(const char *s, unsigned n, unsigned *v)
{
    *v = 0;
    for (unsigned i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *v = *v * 10 + (unsigned)(s[i] - '0');
    }
    return true;
}

enum skf_err skf_time_parse(const char *s, int64_t *unix_seconds)
{
    static const unsigned char month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    unsigned y, mo, d, h, mi, sec;
    if (strlen(s) != 20 || !is_digits(s, 4, &y) || s[4] != '-' || !is_digits(s + 5, 2, &mo) || s[7] != '-' ||
        !is_digits(s + 8, 2, &d) || s[10] != 'T' || !is_digits(s + 11, 2, &h) || s[13] != ':' ||
        !is_digits(s + 14, 2, &mi) || s[16] != ':' || !is_digits(s + 17, 2, &sec) || s[19] != 'Z')
        return SKF_ERR_FORMAT;
    bool is_leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    if (mo < 1 || mo > 12 || d < 1 || d > (unsigned)(month_days[mo - 1] + (mo == 2 && is_leap)) || h > 23 || mi > 59 ||
        sec > 60)
        return SKF_ERR_FORMAT;
    *unix_seconds = days_of(y, mo, d) * 86400 + h * 3600 + mi * 60 + sec;
    return SKF_OK;
}
