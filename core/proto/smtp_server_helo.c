/* smtp_server_helo.c - the greeting, EHLO and HELO (RFC 5321 §4.1.1.1, §4.3.1), LHLO (RFC 2033 §4.1).
 *
 * Layer: proto. See smtp_server_impl.h.
 */
#include <inttypes.h>
#include <stdio.h>

#include "proto/smtp_limits.h"
#include "proto/smtp_server_impl.h"

static bool begins_with_name(struct str text, struct str name)
{
    return str_casestarts(text, name) && (text.n == name.n || text.p[name.n] == ' ');
}

/* RFC 5321 §4.2: "220 " Domain [ SP text ]. No enhanced code here and in EHLO (RFC 2034 §3). */
void server_greet(struct smtp_server *s, const struct smtp_reply *given)
{
    struct str text = given->text.n ? given->text : s->opt.lmtp ? STR("LMTP") : STR("ESMTP");
    char line[1024];

    if (begins_with_name(text, s->opt.hostname))
        snprintf(line, sizeof(line), STR_FMT, STR_ARG(text));
    else
        snprintf(line, sizeof(line), STR_FMT " " STR_FMT, STR_ARG(s->opt.hostname), STR_ARG(text));
    server_write(s, &(struct smtp_reply){ 220, ENH_NONE, str_of(line) });
}

/* What this session will be held to, and nothing else. */
static void add_limits(const struct smtp_server *s, struct buf *out)
{
    struct smtp_limits l = { .rcptmax = s->opt.max_recipients, .mailmax = s->opt.max_messages };

    if (s->opt.limits)
        smtp_limits_write(&l, out);
}

/* RFC 2852, RFC 4865, RFC 6710. */
static void add_times(const struct smtp_server_options *opt, struct buf *out)
{
    char until[SMTP_DATE_TIME_TEXT];

    if (opt->deliver_by)
        buf_add_str(out, STR("\nDELIVERBY"));
    if (opt->deliver_by && opt->deliver_by_min_s)
        buf_printf(out, " %" PRIu32, opt->deliver_by_min_s);
    if (opt->hold_max_s)
        buf_printf(out, "\nFUTURERELEASE %" PRIu32 " %s", opt->hold_max_s,
                   smtp_date_time_text(opt->hold_max_ms, until));
    if (opt->priority)
        buf_printf(out, "\nMT-PRIORITY%s" STR_FMT, opt->priority_profile.n ? " " : "",
                   STR_ARG(opt->priority_profile));
}

void server_write_capabilities(struct smtp_server *s)
{
    const struct smtp_server_options *opt = &s->opt;
    struct buf text;

    buf_init(&text, 1024);
    buf_add_str(&text, str_first(opt->hostname, SMTP_MAX_DOMAIN));
    if (s->extended) {
        buf_printf(&text, "\nPIPELINING\nSIZE %" PRIu64 "%s%s%s", opt->size_limit,
                   opt->etrn ? "\nETRN" : "", opt->atrn ? "\nATRN" : "",
                   opt->starttls && !s->tls ? "\nSTARTTLS" : "");
        server_add_auth(s, &text);
        buf_printf(&text, "\nENHANCEDSTATUSCODES\n8BITMIME%s%s%s%s",
                   opt->smtputf8 ? "\nSMTPUTF8" : "", opt->dsn ? "\nDSN" : "",
                   opt->chunking ? "\nCHUNKING" : "", opt->binarymime ? "\nBINARYMIME" : "");
        add_times(opt, &text);
        if (opt->xclient)
            buf_add_str(&text, STR("\nXCLIENT " SERVER_XCLIENT_ATTRIBUTES));
        if (opt->requiretls && s->tls)
            buf_add_str(&text, STR("\nREQUIRETLS"));
        add_limits(s, &text);
    }
    if (text.failed) /* half a list would be a lie */
        s->failed = text.failed;
    else
        server_write(s, &(struct smtp_reply){ 250, ENH_NONE, buf_str(&text) });
    buf_done(&text);
}

static enum step hello(struct smtp_server *s, struct str name, bool extended, const char *syntax,
                       struct smtp_server_event *ret)
{
    if (smtp_parse_helo(name, false) < 0) /* A-labels only (RFC 6531 §3.7.1) */
        return server_reply(s, 501, ENH(5, 5, 4), syntax);
    ret->helo.name = name;
    ret->helo.extended = s->extended = extended;
    return server_ask(s, SMTP_SERVER_HELO, ret);
}

enum step server_on_ehlo(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    return hello(s, arg, true, "Syntax: EHLO domain", ret);
}

enum step server_on_lhlo(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    return hello(s, arg, true, "Syntax: LHLO domain", ret);
}

enum step server_on_helo(struct smtp_server *s, struct str arg, struct smtp_server_event *ret)
{
    return hello(s, arg, false, "Syntax: HELO domain", ret);
}
