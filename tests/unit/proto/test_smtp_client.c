/* The SMTP client: transcripts, and the pure functions beneath it. Long, because the reader of transcripts is two thirds of it.
 *
 * A transcript (tests/transcripts/client/ *.txt) holds cases, `== name`, of lines:
 *   O: lmtp, tls, starttls=never|offered|required, name=HOST    options, before all else
 *      user=NAME password=TEXT nonce=TEXT mechanisms=NAME clear
 *   S: text     a line from the server; CRLF is added
 *   R: text     bytes from the server as they are
 *   C: text     a line that the client must have sent by now, with its CRLF
 *   E: text     the next event, as event_text() writes it
 *   A: action   begin from=A to=B to=C size=N 8bit binary bdat utf8 requiretls by=N;RT priority=N ask | body TEXT | end |
 *               quit | tls | lost ERROR; `=> EBUSY` behind it: what it must return
 *   T: caps ... | peer NAME | stage NAME    what must be known now
 *   use NAME    the lines of `== define NAME`, of this file
 * `S*N:`, `R*N:`, `C*N:` and `E*N:` stand for N times that line; \r \n \t \\ \xNN are escapes.
 * Before each S, R and A, and at the end, no event and no output may be left over
 * (but output between two A).
 *
 * Consecutive S and R are one piece of input. Each case runs with that piece whole, byte by byte,
 * and cut at every point (at some 1500 points of long ones).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>

#include "proto/smtp_client_internal.h"

/* ---------------------------------------------------------- reading transcripts ---- */

struct step {
    char op; /* O S C E A T; R is S */
    char *text;
    size_t n;
    int line;
    size_t times;
};

struct block {
    char name[120];
    bool define;
    struct step *steps;
    size_t n;
};

struct script {
    char file[300];
    struct block *blocks;
    size_t n;
};

static _Noreturn void bad_script(const struct script *s, int line, const char *why)
{
    print_error("%s:%d: %s\n", s->file, line, why);
    abort();
}

static size_t unescape(char *text)
{
    char *out = text;

    for (const char *p = text; *p; p++) {
        unsigned v;

        if (*p != '\\') {
            *out++ = *p;
            continue;
        }
        switch (*++p) {
        case 'r': *out++ = '\r'; break;
        case 'n': *out++ = '\n'; break;
        case 't': *out++ = '\t'; break;
        case 's': *out++ = ' '; break;
        case 'x':
            if (sscanf(p + 1, "%2x", &v) != 1)
                abort();
            *out++ = (char)v;
            p += 2;
            break;
        default: *out++ = *p;
        }
    }
    *out = '\0';
    return (size_t)(out - text);
}

static struct step *add_step(struct block *b, char op, const char *text, size_t n, int line)
{
    struct step *st;

    b->steps = realloc(b->steps, (b->n + 1) * sizeof(*b->steps));
    st = &b->steps[b->n++];
    *st = (struct step){ .op = op, .n = n, .line = line, .times = 1 };
    st->text = malloc(n + 3);
    memcpy(st->text, text, n);
    st->text[n] = '\0';
    return st;
}

static void use_block(struct script *s, struct block *b, const char *name, int line)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct block *from = &s->blocks[i];

        if (!from->define || strcmp(from->name, name) != 0)
            continue;
        for (size_t k = 0; k < from->n; k++)
            add_step(b, from->steps[k].op, from->steps[k].text, from->steps[k].n, line)->times =
                from->steps[k].times;
        return;
    }
    bad_script(s, line, "use of what is not defined");
}

static void read_step(struct script *s, struct block *b, char *text, int line)
{
    unsigned long times = 1;
    char op = text[0], *p = text + 1;
    struct step *st;

    if (*p == '*')
        times = strtoul(p + 1, &p, 10);
    if (!strchr("OSRCEAT", op) || *p != ':')
        bad_script(s, line, "not a line of a transcript");
    p++;
    if (*p == ' ')
        p++;
    size_t n = op == 'A' || op == 'E' ? strlen(p) : unescape(p);
    st = add_step(b, op == 'R' ? 'S' : op, p, n, line);
    st->times = times;
    if (op == 'S' || op == 'C') {
        memcpy(st->text + n, "\r\n", 3);
        st->n += 2;
    }
}

static void read_script(struct script *s, const char *path)
{
    char text[8192];
    FILE *f = fopen(path, "r");
    int line = 0;

    *s = (struct script){ 0 };
    snprintf(s->file, sizeof(s->file), "%s", path);
    if (!f)
        bad_script(s, 0, "cannot be read");
    while (fgets(text, sizeof(text), f)) {
        line++;
        text[strcspn(text, "\n")] = '\0';
        if (text[0] == '\0' || text[0] == '#')
            continue;
        if (strncmp(text, "== ", 3) == 0) {
            struct block b = { .define = strncmp(text + 3, "define ", 7) == 0 };

            snprintf(b.name, sizeof(b.name), "%.100s", text + (b.define ? 10 : 3));
            s->blocks = realloc(s->blocks, (s->n + 1) * sizeof(*s->blocks));
            s->blocks[s->n++] = b;
        } else if (s->n == 0) {
            bad_script(s, line, "before the first ==");
        } else if (strncmp(text, "use ", 4) == 0) {
            use_block(s, &s->blocks[s->n - 1], text + 4, line);
        } else {
            read_step(s, &s->blocks[s->n - 1], text, line);
        }
    }
    fclose(f);
}

static void free_script(struct script *s)
{
    for (size_t i = 0; i < s->n; i++) {
        for (size_t k = 0; k < s->blocks[i].n; k++)
            free(s->blocks[i].steps[k].text);
        free(s->blocks[i].steps);
    }
    free(s->blocks);
}

/* ---------------------------------------------------------------- running them ---- */

struct run {
    const struct script *script;
    const struct block *block;
    struct smtp_client *client;
    size_t cut;      /* 0: whole; SIZE_MAX: byte by byte; else after so many bytes */
    size_t fed;      /* server bytes so far */
    struct buf sent; /* not yet matched */
    struct buf events;
    char hostname[80];
};

static _Noreturn void run_failed(const struct run *r, int line, const char *what, struct str want,
                                 struct str got)
{
    print_error("%s:%d: case \"%s\", cut at %zd: %s\n  want: " STR_FMT "\n  got:  " STR_FMT "\n",
                r->script->file, line, r->block->name, (ssize_t)r->cut, what, STR_ARG(want),
                STR_ARG(got));
    fail();
    abort();
}

static void add_escaped(struct buf *b, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\n')
            buf_add(b, "\\n", 2);
        else
            buf_add_char(b, s.p[i]);
    }
}

static void add_reply(struct buf *b, const struct smtp_client_event *ev)
{
    char enhanced[16];

    if (ev->reply.code) {
        buf_printf(b, " %u %s", ev->reply.code, smtp_enhanced_text(ev->reply.enhanced, enhanced));
        add_escaped(b, ev->reply.text);
    } else {
        buf_printf(b, " %s", strerrorname_np(-ev->error));
        if (ev->reply.text.n) {
            buf_printf(b, " (");
            add_escaped(b, ev->reply.text);
            buf_printf(b, ")");
        }
    }
}

static void event_text(struct buf *b, const struct smtp_client_event *ev)
{
    const char *stage = smtp_stage_name(ev->stage);

    switch (ev->type) {
    case SMTP_CLIENT_READY: buf_printf(b, "ready"); break;
    case SMTP_CLIENT_STARTTLS: buf_printf(b, "starttls"); break;
    case SMTP_CLIENT_NEED_BODY: buf_printf(b, "need body"); break;
    case SMTP_CLIENT_TRANSACTION_DONE: buf_printf(b, "done"); break;
    case SMTP_CLIENT_MAIL_RESULT:
        assert_int_equal(ev->stage, SMTP_STAGE_MAIL);
        buf_printf(b, "mail:");
        add_reply(b, ev);
        break;
    case SMTP_CLIENT_RCPT_RESULT:
        assert_int_equal(ev->stage, SMTP_STAGE_RCPT);
        buf_printf(b, "rcpt %zu:", ev->index);
        add_reply(b, ev);
        break;
    case SMTP_CLIENT_RESULT:
        buf_printf(b, "result of %s for ", stage);
        if (ev->index == SIZE_MAX)
            buf_printf(b, "all:");
        else
            buf_printf(b, "%zu:", ev->index);
        add_reply(b, ev);
        break;
    case SMTP_CLIENT_FAILED:
        buf_printf(b, "failed at %s:", stage);
        add_reply(b, ev);
        break;
    case SMTP_CLIENT_CLOSE:
        buf_printf(b, "close:");
        add_reply(b, ev);
        break;
    }
    buf_add_char(b, '\n');
}

static void drain(struct run *r)
{
    struct smtp_client_event ev;
    struct str out;
    int n;

    do {
        while ((out = smtp_client_output(r->client)).n) {
            if (r->cut == SIZE_MAX)
                out.n = 1;
            buf_add_str(&r->sent, out);
            smtp_client_sent(r->client, out.n);
        }
        n = smtp_client_next(r->client, &ev);
        if (n == 1)
            event_text(&r->events, &ev);
    } while (n == 1 || smtp_client_output(r->client).n);
    assert_true(n == 0 || n == -EPIPE);
}

static void feed(struct run *r, const char *p, size_t n)
{
    while (n) {
        size_t piece = n;

        if (r->cut == SIZE_MAX)
            piece = 1;
        else if (r->cut > r->fed && r->cut - r->fed < n)
            piece = r->cut - r->fed;
        size_t taken = smtp_client_feed(r->client, p, piece);
        assert_true(taken == piece || taken == 0);
        drain(r);
        r->fed += piece;
        p += piece;
        n -= piece;
    }
}

/* All server bytes from step i on; returns the step after them. */
static size_t run_server(struct run *r, size_t i)
{
    struct buf all;

    buf_init(&all, 0);
    for (; i < r->block->n && r->block->steps[i].op == 'S'; i++)
        for (size_t k = 0; k < r->block->steps[i].times; k++)
            buf_add(&all, r->block->steps[i].text, r->block->steps[i].n);
    feed(r, buf_str(&all).p, buf_len(&all));
    buf_done(&all);
    return i;
}

static void expect_sent(struct run *r, const struct step *st)
{
    struct str want = str_make(st->text, st->n);

    for (size_t k = 0; k < st->times; k++) {
        if (!str_starts(buf_str(&r->sent), want))
            run_failed(r, st->line, "output differs", want, buf_str(&r->sent));
        buf_consume(&r->sent, want.n);
    }
}

static void expect_event(struct run *r, const struct step *st)
{
    struct str want = str_make(st->text, st->n), rest, got;

    for (size_t k = 0; k < st->times; k++) {
        rest = buf_str(&r->events);
        got = STR("(none)");
        if (rest.n)
            str_cut(&rest, '\n', &got);
        if (!str_eq(got, want))
            run_failed(r, st->line, "event differs", want, got);
        buf_consume(&r->events, got.n + 1);
    }
}

static void add_limits(struct buf *b, const struct smtp_limits *l)
{
    if (l->rcptmax)
        buf_printf(b, " rcptmax=%u", l->rcptmax);
    if (l->mailmax)
        buf_printf(b, " mailmax=%u", l->mailmax);
    if (l->rcptdomainmax)
        buf_printf(b, " rcptdomainmax=%u", l->rcptdomainmax);
}

static void expect_told(struct run *r, const struct step *st)
{
    const struct smtp_client_caps *caps = smtp_client_caps(r->client);
    struct str name = smtp_client_peer_name(r->client), got;
    struct buf b;

    buf_init(&b, 0);
    if (strncmp(st->text, "peer", 4) == 0)
        buf_printf(&b, "peer " STR_FMT, STR_ARG(name));
    else if (strncmp(st->text, "stage", 5) == 0)
        buf_printf(&b, "stage %s", smtp_stage_name(smtp_client_stage(r->client)));
    else
        buf_printf(&b, "caps%s%s%s%s%s%s%s%s%s%s %llu", caps->pipelining ? " pipelining" : "",
                   caps->size ? " size" : "", caps->eightbit ? " 8bit" : "",
                   caps->starttls ? " starttls" : "", caps->smtputf8 ? " utf8" : "",
                   caps->chunking ? " chunking" : "", caps->binarymime ? " binarymime" : "",
                   caps->dsn ? " dsn" : "", caps->enhanced ? " enhanced" : "",
                   caps->requiretls ? " requiretls" : "", (unsigned long long)caps->size_limit);
    add_limits(&b, &caps->limits);
    assert_int_equal(b.failed, 0);
    got = buf_str(&b);
    if (str_cmp(got, str_make(st->text, st->n)) != 0)
        run_failed(r, st->line, "what is known differs", str_make(st->text, st->n), got);
    buf_done(&b);
}

static int act_begin(struct run *r, struct str args)
{
    char *copies[80];
    struct str recipients[64], word;
    struct smtp_client_mail mail = { .recipients = recipients };
    size_t n = 0;

    while (args.n && str_cut(&args, ' ', &word)) {
        /* Each in a block of its own, gone after the call: nothing of it may be kept. */
        char *copy = copies[n++] = str_dup(word);
        struct str value;

        unescape(copy);
        value = str_of(strchr(copy, '=') ? strchr(copy, '=') + 1 : "");
        if (strncmp(copy, "from=", 5) == 0)
            mail.sender = value;
        else if (strncmp(copy, "to=", 3) == 0)
            recipients[mail.n_recipients++] = value;
        else if (strncmp(copy, "size=", 5) == 0)
            assert_int_equal(str_to_u64(value, &mail.size), 0);
        else if (strcmp(copy, "8bit") == 0)
            mail.body = SMTP_BODY_8BITMIME;
        else if (strcmp(copy, "binary") == 0)
            mail.body = SMTP_BODY_BINARYMIME;
        else if (strcmp(copy, "bdat") == 0)
            mail.bdat = true;
        else if (strcmp(copy, "utf8") == 0)
            mail.smtputf8 = true;
        else if (strcmp(copy, "requiretls") == 0)
            mail.requiretls = true;
        else if (strncmp(copy, "by=", 3) == 0) {
            struct smtp_times times = { .hold = false };
            assert_int_equal(smtp_times_param(STR("BY"), value, SMTP_TIMES_BY, &times), 0);
            mail.by = times.by;
        } else if (strncmp(copy, "priority=", 9) == 0) {
            mail.prioritized = true;
            mail.priority = (int8_t)atoi(value.p);
        } else if (strcmp(copy, "ask") == 0)
            mail.ask_only = true;
        else
            fail_msg("begin: %s", copy);
    }
    int result = smtp_client_begin(r->client, &mail);
    while (n)
        free(copies[--n]);
    return result;
}

static int act_body(struct run *r, struct str text)
{
    char *copy = str_dup(text);
    size_t n = unescape(copy);
    int result = 0;

    if (r->cut == SIZE_MAX) {
        for (size_t i = 0; i < n && result == 0; i++)
            result = smtp_client_body(r->client, copy + i, 1);
    } else {
        result = smtp_client_body(r->client, copy, n);
    }
    free(copy);
    return result;
}

static int errno_of(struct str name)
{
    for (int e = 1; e < 200; e++)
        if (strerrorname_np(e) && str_eq(str_of(strerrorname_np(e)), name))
            return -e;
    fail_msg("no such error: " STR_FMT, STR_ARG(name));
    return 0;
}

static void run_action(struct run *r, const struct step *st)
{
    struct str args = str_make(st->text, st->n), verb;
    ptrdiff_t arrow = str_find(args, STR(" => "));
    int want = 0, got = 0;

    if (arrow >= 0) {
        want = errno_of(str_from(args, (size_t)arrow + 4));
        args.n = (size_t)arrow;
    }
    str_cut(&args, ' ', &verb);
    if (str_eq(verb, STR("begin")))
        got = act_begin(r, args);
    else if (str_eq(verb, STR("body")))
        got = act_body(r, args);
    else if (str_eq(verb, STR("end")))
        got = smtp_client_body_end(r->client);
    else if (str_eq(verb, STR("quit")))
        smtp_client_quit(r->client);
    else if (str_eq(verb, STR("tls")))
        smtp_client_tls_started(r->client);
    else if (str_eq(verb, STR("lost")))
        smtp_client_lost(r->client, args.n ? errno_of(args) : 0);
    else
        run_failed(r, st->line, "no such action", STR(""), verb);
    if (got != want)
        run_failed(r, st->line, "the action's result differs", str_of(strerrorname_np(-want)),
                   str_of(strerrorname_np(-got)));
    drain(r);
}

static void expect_nothing_left(struct run *r, int line, bool output_ok)
{
    if (buf_len(&r->events))
        run_failed(r, line, "event left over", STR(""), buf_str(&r->events));
    if (buf_len(&r->sent) && !output_ok)
        run_failed(r, line, "output left over", STR(""), buf_str(&r->sent));
}

static void read_options(struct run *r, struct str text, struct smtp_client_options *opt)
{
    struct str word;

    while (text.n && str_cut(&text, ' ', &word)) {
        if (str_eq(word, STR("lmtp")))
            opt->lmtp = true;
        else if (str_eq(word, STR("tls")))
            opt->tls = true;
        else if (str_eq(word, STR("starttls=offered")))
            opt->starttls = SMTP_TLS_IF_OFFERED;
        else if (str_eq(word, STR("starttls=required")))
            opt->starttls = SMTP_TLS_REQUIRED;
        else if (str_starts(word, STR("user=")))
            opt->user = str_from(word, 5);
        else if (str_starts(word, STR("password=")))
            opt->password = str_from(word, 9);
        else if (str_starts(word, STR("nonce=")))
            opt->nonce = str_from(word, 6);
        else if (str_starts(word, STR("mechanisms=")))
            opt->mechanisms |= SASL_BIT(sasl_find(str_from(word, 11)));
        else if (str_eq(word, STR("clear")))
            opt->auth_in_clear = true;
        else
            fail_msg("no such option: " STR_FMT, STR_ARG(word));
    }
}

static size_t run_case(const struct script *s, const struct block *b, size_t cut)
{
    struct run r = { .script = s, .block = b, .cut = cut, .hostname = "me.example" };
    struct smtp_client_options opt = { .hostname = str_of(r.hostname) };
    size_t i = 0;

    for (; i < b->n && b->steps[i].op == 'O'; i++)
        read_options(&r, str_make(b->steps[i].text, b->steps[i].n), &opt);
    buf_init(&r.sent, 0);
    buf_init(&r.events, 0);
    r.client = smtp_client_new(&opt);
    while (i < b->n) {
        const struct step *st = &b->steps[i];

        if (st->op == 'S' || st->op == 'A')
            expect_nothing_left(&r, st->line, st->op == 'A' && i > 0 && st[-1].op == 'A');
        switch (st->op) {
        case 'S': i = run_server(&r, i); continue;
        case 'C': expect_sent(&r, st); break;
        case 'E': expect_event(&r, st); break;
        case 'A': run_action(&r, st); break;
        case 'T': expect_told(&r, st); break;
        default: bad_script(s, st->line, "options come first");
        }
        i++;
    }
    expect_nothing_left(&r, b->n ? b->steps[b->n - 1].line : 0, false);
    r.client = smtp_client_free(r.client);
    buf_done(&r.sent);
    buf_done(&r.events);
    return r.fed;
}

static void run_script(const char *path, size_t *ret_cases)
{
    struct script s;

    read_script(&s, path);
    for (size_t i = 0; i < s.n; i++) {
        if (s.blocks[i].define)
            continue;
        size_t total = run_case(&s, &s.blocks[i], 0);
        run_case(&s, &s.blocks[i], SIZE_MAX);
        for (size_t cut = 1; cut < total; cut += 1 + total / 1500)
            run_case(&s, &s.blocks[i], cut);
        ++*ret_cases;
    }
    free_script(&s);
}

static int is_transcript(const struct dirent *d)
{
    return str_ends(str_of(d->d_name), STR(".txt"));
}

static void test_transcripts(void **state)
{
    const char *dir = TERN_TEST_DIR "/transcripts/client";
    struct dirent **names;
    char path[600];
    size_t cases = 0;
    int n = scandir(dir, &names, is_transcript, alphasort);

    (void)state;
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
        run_script(path, &cases);
        free(names[i]);
    }
    free(names);
    print_message("%zu cases in %d files\n", cases, n);
    assert_true(cases > 100);
}

/* -------------------------------------------------------- the pure functions ---- */

static void check_limits(const char *text, uint32_t rcpt, uint32_t mail, uint32_t domain)
{
    struct smtp_client_caps caps;
    char ehlo[512];

    snprintf(ehlo, sizeof(ehlo), "x\nPIPELINING\n%s\nDSN", text);
    smtp_client_parse_caps(str_of(ehlo), &caps);
    assert_true(caps.pipelining && caps.dsn);
    assert_int_equal(caps.limits.rcptmax, rcpt);
    assert_int_equal(caps.limits.mailmax, mail);
    assert_int_equal(caps.limits.rcptdomainmax, domain);
}

/* RFC 9422 section 3: what a client does not know, or cannot read, it passes over. */
static void test_limits(void **state)
{
    char many[400] = "LIMITS";

    (void)state;
    check_limits("LIMITS", 0, 0, 0);
    check_limits("LIMITS ", 0, 0, 0);
    check_limits("limits rcptmax=1 Mailmax=999999 RcptDomainMax=20", 1, 999999, 20);
    check_limits("LIMITS FOO=7 RCPTMAX=100 bar  MAILMAX=3 X-Y_Z=a=b", 100, 3, 0);
    check_limits("LIMITS RCPTMAX=0 MAILMAX=00 RCPTDOMAINMAX=01", 0, 0, 0);
    check_limits("LIMITS RCPTMAX=1000000 MAILMAX=4294967297 RCPTDOMAINMAX=-1", 0, 0, 0);
    check_limits("LIMITS RCPTMAX MAILMAX= RCPTDOMAINMAX=1x", 0, 0, 0);
    check_limits("LIMITS =5 RCPTMAX==5 MAILMAX=5=5", 0, 0, 0);
    check_limits("LIMITS RCPTMAX=9 RCPTMAX=4 RCPTMAX=6", 4, 0, 0);
    check_limits("LIMITSX RCPTMAX=9", 0, 0, 0);
    check_limits("LIMITS=RCPTMAX=9", 0, 0, 0);
    check_limits("LIMITS RCPTMAX=9\nLIMITS MAILMAX=2", 0, 2, 0); /* the last line counts */
    for (size_t i = 0; i < 60; i++)
        strcat(many, " A=1");
    strcat(many, " MAILMAX=8");
    check_limits(many, 0, 8, 0);
}

static void test_limits_are_written(void **state)
{
    struct smtp_limits none = { 0 }, all = { 1000, 20, 4000000 }, back;
    struct buf b;

    (void)state;
    buf_init(&b, 0);
    smtp_limits_write(&none, &b);
    assert_int_equal(buf_len(&b), 0);
    smtp_limits_write(&all, &b);
    assert_true(str_eq(buf_str(&b), STR("\nLIMITS RCPTMAX=1000 MAILMAX=20 RCPTDOMAINMAX=999999")));
    smtp_limits_parse(str_from(buf_str(&b), 8), &back);
    assert_true(back.rcptmax == 1000 && back.mailmax == 20 && back.rcptdomainmax == 999999);
    buf_done(&b);
}

/* A client that is READY. */
static struct smtp_client *ready(const char *ehlo)
{
    struct smtp_client_options opt = { .hostname = STR("me") };
    struct smtp_client *c = smtp_client_new(&opt);
    struct smtp_client_event ev;

    assert_non_null(c);
    smtp_client_feed(c, "220 x\r\n", 7);
    assert_int_equal(smtp_client_next(c, &ev), 0);
    smtp_client_feed(c, ehlo, strlen(ehlo));
    assert_int_equal(smtp_client_next(c, &ev), 1);
    assert_int_equal(ev.type, SMTP_CLIENT_READY);
    return c;
}

static void test_who_is_admitted(void **state)
{
    struct smtp_client *c = ready("250-x\r\n250 LIMITS RCPTMAX=3 RCPTDOMAINMAX=2 MAILMAX=9\r\n");

    (void)state;
    assert_true(smtp_client_admits_domain(c, STR("y")) && smtp_client_admits_domain(c, STR("z")));
    assert_true(smtp_client_admit(c, STR("a@y"), 0));
    assert_true(smtp_client_admit(c, STR("\"b@c\"@z"), 1));
    assert_false(smtp_client_admit(c, STR("c@w"), 2)); /* one domain too many */
    assert_true(smtp_client_admit(c, STR("d@Z"), 2));
    assert_false(smtp_client_admit(c, STR("e@z"), 3)); /* one recipient too many */
    assert_true(smtp_client_admits_domain(c, STR("Y")));
    assert_false(smtp_client_admits_domain(c, STR("w")));
    assert_false(smtp_client_spent(c));
    smtp_client_free(c);

    c = ready("250 x\r\n"); /* without limits everybody is, and nothing is remembered */
    for (size_t i = 0; i < 5000; i++)
        assert_true(smtp_client_admit(c, STR("a@y"), i));
    assert_true(smtp_client_admits_domain(c, STR("w")));
    smtp_client_free(c);

    c = ready("250-x\r\n250 LIMITS RCPTDOMAINMAX=999999\r\n"); /* what is remembered is bounded */
    for (unsigned i = 0; i < 100; i++) {
        char address[32];
        snprintf(address, sizeof(address), "a@d%u.example", i);
        assert_int_equal(smtp_client_admit(c, str_of(address), 0), i < 64);
    }
    smtp_client_free(c);
}

static void test_caps(void **state)
{
    struct smtp_client_caps caps;

    (void)state;
    smtp_client_parse_caps(STR_NONE, &caps);
    assert_false(caps.pipelining || caps.size || caps.starttls);
    smtp_client_parse_caps(STR("PIPELINING"), &caps); /* the host's name */
    assert_false(caps.pipelining);
    smtp_client_parse_caps(STR("x\npipelining\nSize 1000\n8bitMIME\n\nXX\nSTARTTLS now\nDSN"),
                           &caps);
    assert_true(caps.pipelining && caps.size && caps.eightbit && caps.starttls && caps.dsn);
    assert_false(caps.smtputf8 || caps.chunking || caps.enhanced);
    assert_int_equal(caps.size_limit, 1000);
    smtp_client_parse_caps(
        STR("x\nPIPELININGX\nXSTARTTLS\nSIZE=5\n SMTPUTF8 \nCHUNKING\nbinarymime"), &caps);
    assert_false(caps.pipelining || caps.starttls || caps.size);
    assert_true(caps.smtputf8 && caps.chunking && caps.binarymime);
    for (size_t i = 0; i < 6; i++) {
        const char *const odd[] = { "x\nSIZE",     "x\nSIZE 0",
                                    "x\nSIZE -1",  "x\nSIZE 99999999999999999999",
                                    "x\nSIZE 10k", "x\nSIZE 12\nSIZE" };
        smtp_client_parse_caps(str_of(odd[i]), &caps);
        assert_true(caps.size);
        assert_int_equal(caps.size_limit, 0);
    }
    smtp_client_parse_caps(STR("x\nSIZE 18446744073709551615"), &caps);
    assert_true(caps.size_limit == UINT64_MAX);
    assert_false(caps.deliver_by || caps.priority);
    static const struct {
        const char *text;
        uint32_t least;
    } by[] = {
        { "x\nDELIVERBY", 0 },       { "x\nDELIVERBY 120", 120 },
        { "x\ndeliverby 60,X", 60 }, { "x\nDELIVERBY ,X", 0 },
        { "x\nDELIVERBY 1x", 0 },    { "x\nDELIVERBY 99999999999", SMTP_BY_MOST },
    };
    for (size_t i = 0; i < ARRAY_LEN(by); i++) {
        smtp_client_parse_caps(str_of(by[i].text), &caps);
        assert_true(caps.deliver_by && !caps.priority);
        assert_int_equal(caps.deliver_by_min_s, by[i].least);
    }
    smtp_client_parse_caps(STR("x\nMT-PRIORITY MIXER"), &caps);
    assert_true(caps.priority && !caps.deliver_by);
}

static void test_addresses(void **state)
{
    static const char *const good[] = { "",          "postmaster",   "a@b.example",
                                        "\"a b\"@c", "\"a>b\"@c",    "\"a\\\"b\"@c",
                                        "a!b%c@d",   "a@[IPv6:::1]", "a@b@c" };
    static const char *const bad[] = { "a\r@b", "a\nb",        "a\tb",      "a\x7f", "a@b> SIZE=1",
                                       "a@b>",  "<a@b>",       "a b@c",     "\"a",   "a\"b",
                                       "\"a\\", "\"a\\\r\"@b", "\xc3\xbc@b" };
    char longest[1001];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(smtp_client_address_ok(str_of(good[i]), false));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(smtp_client_address_ok(str_of(bad[i]), false));
    assert_true(smtp_client_address_ok(STR("\xc3\xbc@b"), true));
    assert_false(smtp_client_address_ok(str_make("a\0b", 3), true));
    memset(longest, 'a', sizeof(longest));
    assert_true(smtp_client_address_ok(str_make(longest, 1000), false));
    assert_false(smtp_client_address_ok(str_make(longest, 1001), false));
}

/* What stuffing must do, a byte at a time. */
static void stuff_plainly(struct str body, struct buf *out)
{
    bool line_start = true;

    for (size_t i = 0; i < body.n; i++) {
        char ch = body.p[i];

        if (ch == '\r' || ch == '\n') {
            if (ch == '\r' && i + 1 < body.n && body.p[i + 1] == '\n')
                i++;
            buf_add(out, "\r\n", 2);
            line_start = true;
            continue;
        }
        if (line_start && ch == '.')
            buf_add_char(out, '.');
        buf_add_char(out, ch);
        line_start = false;
    }
    if (!line_start)
        buf_add(out, "\r\n", 2);
    buf_add(out, ".\r\n", 3);
}

static uint32_t next_random(uint32_t *seed)
{
    return *seed = *seed * 1664525u + 1013904223u, *seed >> 8;
}

static void test_stuffing(void **state)
{
    static const char letters[] = "..\r\n\r\n\r\nabc";
    uint32_t seed = 4711;
    struct buf want, got;

    (void)state;
    buf_init(&want, 0);
    buf_init(&got, 0);
    for (int round = 0; round < 200000; round++) {
        char body[40];
        size_t n = next_random(&seed) % (sizeof(body) + 1), at = 0;
        struct smtp_stuffing s = { .line_start = true };

        for (size_t i = 0; i < n; i++)
            body[i] = letters[next_random(&seed) % (sizeof(letters) - 1)];
        buf_clear(&want);
        buf_clear(&got);
        stuff_plainly(str_make(body, n), &want);
        while (at < n) {
            size_t piece = next_random(&seed) % (n - at + 1);
            assert_int_equal(smtp_stuff(&s, str_make(body + at, piece), &got), 0);
            at += piece;
        }
        assert_int_equal(smtp_stuff_end(&s, &got), 0);
        assert_int_equal(buf_len(&got), buf_len(&want));
        assert_memory_equal(buf_str(&got).p, buf_str(&want).p, buf_len(&got));
        /* The only lone dot ends it. */
        assert_int_equal(str_find(str_first(buf_str(&got), buf_len(&got) - 1), STR("\r\n.\r\n")),
                         -1);
    }
    buf_done(&want);
    buf_done(&got);
}

static void test_stage_names(void **state)
{
    (void)state;
    for (int s = SMTP_STAGE_CONNECT; s <= SMTP_STAGE_QUIT; s++)
        assert_string_not_equal(smtp_stage_name((enum smtp_stage)s), "unknown");
    assert_string_equal(smtp_stage_name((enum smtp_stage)99), "unknown");
    assert_null(smtp_client_free(NULL));
}

/* A caller that feeds without ever asking is stopped, and told. */
static void test_feed_is_bounded(void **state)
{
    struct smtp_client_options opt = { .hostname = STR("me") };
    struct smtp_client *c = smtp_client_new(&opt);
    struct smtp_client_event ev;
    char lines[8192];
    size_t fed = 0;

    (void)state;
    memset(lines, 'x', sizeof(lines));
    while (smtp_client_feed(c, lines, sizeof(lines)) == sizeof(lines))
        fed += sizeof(lines);
    assert_int_equal(fed, 1024 * 1024);
    assert_int_equal(smtp_client_next(c, &ev), 1);
    assert_int_equal(ev.type, SMTP_CLIENT_FAILED);
    assert_int_equal(ev.error, -EPROTO);
    assert_int_equal(smtp_client_next(c, &ev), -EPIPE);
    assert_int_equal(smtp_client_feed(c, "x", 1), 0);
    c = smtp_client_free(c);
    assert_null(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transcripts),     cmocka_unit_test(test_caps),
        cmocka_unit_test(test_limits),          cmocka_unit_test(test_limits_are_written),
        cmocka_unit_test(test_who_is_admitted), cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_stuffing),        cmocka_unit_test(test_stage_names),
        cmocka_unit_test(test_feed_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
