/* smtp_limits.c - the LIMITS line of EHLO. Layer: proto. Interface: smtp_limits.h. */
#include "proto/smtp_limits.h"

static uint32_t *limit_named(struct smtp_limits *l, struct str name)
{
    return str_caseeq(name, STR("RCPTMAX"))         ? &l->rcptmax
           : str_caseeq(name, STR("MAILMAX"))       ? &l->mailmax
           : str_caseeq(name, STR("RCPTDOMAINMAX")) ? &l->rcptdomainmax
                                                    : NULL;
}

/* %x31-39 0*5DIGIT; 0: it is none. */
static uint32_t value_of(struct str text)
{
    uint64_t value;

    if (text.n == 0 || text.n > 6 || text.p[0] == '0' || str_to_u64(text, &value) < 0)
        return 0;
    return (uint32_t)value;
}

void smtp_limits_parse(struct str params, struct smtp_limits *ret)
{
    struct smtp_limits l = { 0 };
    struct str word, name;

    while (str_cut(&params, ' ', &word)) {
        ptrdiff_t equals = str_chr(word, '=');
        if (equals < 0)
            continue;
        name = str_first(word, (size_t)equals);
        uint32_t *limit = limit_named(&l, name);
        uint32_t value = value_of(str_from(word, (size_t)equals + 1));
        if (limit && value && (*limit == 0 || value < *limit))
            *limit = value;
    }
    *ret = l;
}

static void add_limit(struct buf *out, const char *name, uint32_t value)
{
    if (value)
        buf_printf(out, " %s=%u", name, MIN(value, (uint32_t)SMTP_LIMIT_MOST));
}

void smtp_limits_write(const struct smtp_limits *l, struct buf *out)
{
    if (!l->rcptmax && !l->mailmax && !l->rcptdomainmax)
        return;
    buf_add_str(out, STR("\nLIMITS"));
    add_limit(out, "RCPTMAX", l->rcptmax);
    add_limit(out, "MAILMAX", l->mailmax);
    add_limit(out, "RCPTDOMAINMAX", l->rcptdomainmax);
}
