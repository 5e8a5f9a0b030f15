/* glob.c - patterns with '*' and '?'. Layer: base. Interface: glob.h. */
#include "base/glob.h"

bool glob_is_pattern(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '*' || s.p[i] == '?')
            return true;
        if (s.p[i] == '\\')
            i++;
    }
    return false;
}

/* One element of the pattern that is no '*' against the front of the text: how much of the text it takes,
 * 0 when it does not fit. *ret_used: octets of the pattern. */
static size_t take_one(struct str pattern, struct str text, size_t *ret_used)
{
    char c = *pattern.p;

    *ret_used = 1;
    if (text.n == 0)
        return 0;
    if (c == '?') {
        size_t n = str_utf8_len(text);
        return n ? n : 1;
    }
    if (c == '\\' && pattern.n > 1) {
        c = pattern.p[1];
        *ret_used = 2;
    }
    return ascii_lower(c) == ascii_lower(*text.p);
}

/* The last '*' is enough to go back to: what an earlier one took cannot help. */
bool glob_match(struct str pattern, struct str text)
{
    struct str star = STR_NONE, retry = STR_NONE; /* behind the '*'; where its text ends */

    for (;;) {
        if (pattern.n && *pattern.p == '*') {
            pattern = str_from(pattern, 1);
            star = pattern;
            retry = text;
            if (pattern.n == 0)
                return true;
            continue;
        }
        if (pattern.n == 0 && text.n == 0)
            return true;
        size_t used = 0, taken = pattern.n ? take_one(pattern, text, &used) : 0;
        if (taken) {
            pattern = str_from(pattern, used);
            text = str_from(text, taken);
            continue;
        }
        if (!star.p || retry.n == 0)
            return false;
        retry = str_from(retry, 1);
        text = retry;
        pattern = star;
    }
}

/* A literal at the front of the text? */
static bool stands_here(struct str literal, struct str text)
{
    while (literal.n) {
        size_t used, taken = take_one(literal, text, &used);
        if (!taken)
            return false;
        literal = str_from(literal, used);
        text = str_from(text, taken);
    }
    return true;
}

bool glob_finds(struct str pattern, struct str text)
{
    if (glob_is_pattern(pattern))
        return glob_match(pattern, text);
    for (;;) {
        if (stands_here(pattern, text))
            return true;
        if (text.n == 0)
            return false;
        text = str_from(text, 1);
    }
}
