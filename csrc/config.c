/* config.c - the environment variables: read once at the start, never after.
 *
 * | GOMAXPROCS | Ps of the native domain   | the CPUs this process may use |
 * | GORT_STACK | C stack of a goroutine    | 256K                          |
 * | GORT_DEBUG | k=v,...                   |                               |
 * |            | schedtrace=MS: a line of Go's form every MS milliseconds  |
 * |            | stockswap=1: swap thread states only by CPython's own call |
 * |            | nosysmon=1: no sysmon, to measure what it costs: nothing is |
 * |            | handed off, a wait shown in dumps may look too short      |
 * |            | turn=US, blocked=MS: see sysmon.c                         |
 * |            | maxms=N: at most N threads of a domain (10000)            |
 * A value that makes no sense is said so on stderr and not used. (GORT_PANIC is
 * read by gort.excepthook when it runs.)
 */
#include "runtime.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t bad(const char *env, const char *val, int64_t dflt)
{
    char msg[256];
    snprintf(msg, sizeof msg, "gort: %s=%.100s is not understood, using %lld", env, val, (long long)dflt);
    gort_warn(msg);
    return dflt;
}

static int64_t parse(const char *env, int64_t dflt, int64_t min, int64_t max, bool units)
{
    const char *s = getenv(env);
    if (!s || !*s) return dflt;
    char *end;
    int64_t v = strtoll(s, &end, 10);
    if (end == s) return bad(env, s, dflt);
    if (units) {
        int shift = *end == 'k' || *end == 'K' ? 10 : *end == 'm' || *end == 'M' ? 20 : 0;
        if (shift) end++;
        if (v < 0 || v > max >> shift) return bad(env, s, dflt);
        v <<= shift;
        if (*end == 'B' || *end == 'b') end++;
    }
    if (*end || v < min || v > max) return bad(env, s, dflt);
    return v;
}

int64_t config_int(const char *env, int64_t dflt, int64_t min, int64_t max)
{
    return parse(env, dflt, min, max, false);
}

int64_t config_size(const char *env, int64_t dflt, int64_t min, int64_t max)
{
    return parse(env, dflt, min, max, true);
}

/* Say which keys of GORT_DEBUG nobody knows; once, at the start. */
void config_check_debug(void)
{
    static const char *const keys[] = { "schedtrace=", "stockswap=", "nosysmon=", "turn=", "blocked=", "maxms=" };
    for (const char *s = getenv("GORT_DEBUG"); s && *s; s = strchr(s, ','), s = s ? s + 1 : NULL) {
        bool known = false;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) known |= strncmp(s, keys[i], strlen(keys[i])) == 0;
        if (!known) bad("GORT_DEBUG", s, 0);
    }
}

/* The value of key in GORT_DEBUG=key=value,key=value. */
int64_t config_debug(const char *key, int64_t dflt)
{
    const char *s = getenv("GORT_DEBUG");
    size_t n = strlen(key);
    while (s && *s) {
        if (strncmp(s, key, n) == 0 && s[n] == '=') return atoll(s + n + 1);
        s = strchr(s, ',');
        if (s) s++;
    }
    return dflt;
}
