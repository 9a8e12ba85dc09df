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
 * | GORT_PANIC | crash; read by gort.excepthook when it runs               |
 * A value that makes no sense is said so on stderr and not used.
 */
#include "runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t bad(const char *env, const char *val, int64_t dflt, int64_t min, int64_t max)
{
    char msg[256];
    snprintf(msg, sizeof msg, "gort: %s=%.100s is not understood (a number from %lld to %lld), using %lld", env, val,
             (long long)min, (long long)max, (long long)dflt);
    gort_warn(msg);
    return dflt;
}

static int64_t parse(const char *env, int64_t dflt, int64_t min, int64_t max, bool units)
{
    const char *s = getenv(env);
    if (!s || !*s) return dflt;
    char *end;
    int64_t v = strtoll(s, &end, 10);
    if (end == s) return bad(env, s, dflt, min, max);
    if (units) {
        int shift = *end == 'k' || *end == 'K' ? 10 : *end == 'm' || *end == 'M' ? 20 : 0;
        if (shift) end++;
        if (v < 0 || v > max >> shift) return bad(env, s, dflt, min, max);
        v <<= shift;
        if (*end == 'B' || *end == 'b') end++;
    }
    if (*end || v < min || v > max) return bad(env, s, dflt, min, max);
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

/* What GORT_DEBUG may hold. A unit may follow the number, and is always this one. */
static const struct {
    const char *key, *unit;
    int64_t min, max;
} debug_keys[] = {
    { "schedtrace", "ms", 0, 86400000 }, { "stockswap", "", 0, 1 },        { "nosysmon", "", 0, 1 },
    { "turn", "us", 1, 1000000000 },     { "blocked", "ms", 0, 86400000 }, { "maxms", "", 1, MAXMS },
};

/* Read key=value at s, up to a comma: false if it makes no sense, else its key's index and value. */
static bool debug_pair(const char *s, size_t *key, int64_t *value)
{
    for (size_t i = 0; i < sizeof debug_keys / sizeof *debug_keys; i++) {
        size_t n = strlen(debug_keys[i].key), u = strlen(debug_keys[i].unit);
        if (strncmp(s, debug_keys[i].key, n) != 0 || s[n] != '=') continue;
        char *end;
        *key = i;
        *value = strtoll(s + n + 1, &end, 10);
        if (end == s + n + 1) return false;
        if (strncmp(end, debug_keys[i].unit, u) == 0) end += u;
        return (!*end || *end == ',') && *value >= debug_keys[i].min && *value <= debug_keys[i].max;
    }
    return false;
}

static const char *after_comma(const char *s)
{
    s = strchr(s, ',');
    return s ? s + 1 : NULL;
}

/* Say what of GORT_DEBUG and GORT_PANIC makes no sense; once, at the start. */
void config_check(void)
{
    for (const char *s = getenv("GORT_DEBUG"); s && *s; s = after_comma(s)) {
        size_t key, n = strcspn(s, ",");
        int64_t value;
        if (n == 0 || debug_pair(s, &key, &value)) continue;
        char msg[256];
        snprintf(msg, sizeof msg, "gort: %.*s in GORT_DEBUG is not understood and not used", n < 100 ? (int)n : 100, s);
        gort_warn(msg);
    }
    const char *panic = getenv("GORT_PANIC");
    if (panic && *panic && strcmp(panic, "crash") != 0) {
        char msg[256];
        snprintf(msg, sizeof msg, "gort: GORT_PANIC=%.100s is not understood (it may be crash) and not used", panic);
        gort_warn(msg);
    }
}

/* The value of key in GORT_DEBUG=key=value,key=value: the first that makes sense. */
int64_t config_debug(const char *key, int64_t dflt)
{
    for (const char *s = getenv("GORT_DEBUG"); s && *s; s = after_comma(s)) {
        size_t k;
        int64_t value;
        if (debug_pair(s, &k, &value) && strcmp(debug_keys[k].key, key) == 0) return value;
    }
    return dflt;
}
