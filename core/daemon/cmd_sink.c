/* cmd_sink.c - tern sink: a mail server that takes everything. Layer: daemon. */
#include <stdio.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "base/units.h"
#include "daemon/args.h"
#include "daemon/cmd.h"
#include "daemon/sink.h"

struct sink_line {
    struct arg_list listen, reject;
    const char *hostname, *print, *dir, *max_size, *cert, *key, *dns, *zone;
    bool json;
};

static int read_listen(const struct sink_line *line, struct sink_options *o, struct failure *f)
{
    static const char *const otherwise[] = { "127.0.0.1:2526" };
    const char *const *texts = line->listen.n ? line->listen.v : otherwise;
    size_t n = line->listen.n ? line->listen.n : 1;

    if (n > SINK_LISTENERS)
        return failure_set(f, EX_USAGE, "at most %d addresses to listen on", SINK_LISTENERS);
    for (size_t i = 0; i < n; i++) {
        struct listen_settings *l = &o->listen[o->n_listen++];
        l->text = str_of(texts[i]);
        if (net_addr_parse(l->text, 2526, &l->addr) < 0)
            return failure_set(
                f, EX_USAGE,
                "--listen %s: this is no address; write 127.0.0.1:2526, [::1]:2526 or a path",
                texts[i]);
    }
    return 0;
}

static int read_print(const struct sink_line *line, struct sink_options *o, struct failure *f)
{
    if (!line->print || strcmp(line->print, "summary") == 0)
        o->print = SINK_PRINT_SUMMARY;
    else if (strcmp(line->print, "full") == 0)
        o->print = SINK_PRINT_FULL;
    else if (strcmp(line->print, "none") == 0)
        o->print = SINK_PRINT_NONE;
    else
        return failure_set(f, EX_USAGE, "--print %s: it may be summary, full or none", line->print);
    return 0;
}

static int read_dns(const struct sink_line *line, struct sink_options *o, struct failure *f)
{
    if (!line->dns != !line->zone)
        return failure_set(f, EX_USAGE, "--dns and --zone go together");
    if (line->dns && net_addr_parse(str_of(line->dns), 53, &o->dns) < 0)
        return failure_set(f, EX_USAGE, "--dns %s: this is no address; write 127.0.0.1:2553",
                           line->dns);
    o->zone = line->zone;
    return 0;
}

static int read_rest(const struct sink_line *line, struct sink_options *o, struct failure *f)
{
    char error[TLS_ERROR_TEXT];
    struct stat st;

    for (size_t i = 0; i < line->reject.n; i++) {
        if (o->n_reject == SINK_REJECTS)
            return failure_set(f, EX_USAGE, "at most %d times --reject", SINK_REJECTS);
        if (!sink_reject_parse(line->reject.v[i], &o->reject[o->n_reject++]))
            return failure_set(
                f, EX_USAGE,
                "--reject %s: write user@example.com=550, or @example.com=451 for a domain",
                line->reject.v[i]);
    }
    if (size_parse(str_of(line->max_size), &o->max_size) < 0 || !o->max_size)
        return failure_set(f, EX_USAGE, "--max-size %s: this is no size; write 50M",
                           line->max_size);
    o->dir = str_of(line->dir);
    if (line->dir && (stat(line->dir, &st) < 0 || !S_ISDIR(st.st_mode)))
        return failure_set(f, EX_CANTCREAT, "--dir %s: there is no such folder; make it first",
                           line->dir);
    o->hostname = str_of(line->hostname);
    o->json = line->json;
    if (line->cert && tls_context_new(str_of(line->cert), line->key ? str_of(line->key) : STR_NONE,
                                      STR_NONE, &o->tls, error) < 0)
        return failure_set(f, EX_NOINPUT, "%s", error);
    return 0;
}

int cmd_sink(int argc, char **argv)
{
    static struct sink_line line = { .hostname = "sink.tern.test", .max_size = "50M" };
    static struct sink_options o;
    const struct arg_option options[] = {
        ARG_LIST('l', "listen", "ADDR", &line.listen,
                 "where to listen (default 127.0.0.1:2526); may be repeated"),
        ARG_TEXT('p', "print", "HOW", &line.print,
                 "summary: one line for each message (default)\nfull: its content as well\n"
                 "none: nothing, for benchmarks"),
        ARG_TEXT('d', "dir", "DIR", &line.dir, "keep each message as a file DIR/ID.eml"),
        ARG_LIST('r', "reject", "RCPT=CODE", &line.reject,
                 "refuse a recipient, or @DOMAIN, with that code;\nmay be repeated"),
        ARG_TEXT(0, "hostname", "NAME", &line.hostname,
                 "its name in the greeting (default sink.tern.test)"),
        ARG_TEXT(0, "max-size", "SIZE", &line.max_size, "of a message (default 50M)"),
        ARG_TEXT(0, "tls-cert", "FILE", &line.cert, "offer STARTTLS with that certificate (PEM)"),
        ARG_TEXT(0, "tls-key", "FILE", &line.key, "its key, where it is in a file of its own"),
        ARG_TEXT(0, "dns", "ADDR", &line.dns,
                 "answer DNS questions (UDP) there as well, from the zone"),
        ARG_TEXT(0, "zone", "FILE", &line.zone,
                 "what DNS says: lines such as `example.com. MX 10 mx.example.com.`;\n"
                 "other names do not exist"),
        ARG_JSON(&line.json),
    };
    const struct arg_command command = {
        .name = "sink",
        .usage = "sink [--listen ADDR ...] [--print summary|full|none] [--dir DIR] [--json]",
        .about =
            "A mail server that takes everything and delivers nothing: a next hop for tests,\n"
            "demonstrations and benchmarks. Ends at SIGINT or SIGTERM, and says how much came.",
        .options = options,
        .n_options = ARRAY_LEN(options),
    };
    struct arg_list operands;
    struct failure f = { 0 };
    struct sink *s;
    int exit_code;

    if (!args_get(&command, argc, argv, &operands, &exit_code))
        return exit_code;
    int r = read_listen(&line, &o, &f);
    if (r == 0)
        r = read_print(&line, &o, &f);
    if (r == 0)
        r = read_dns(&line, &o, &f);
    if (r == 0)
        r = read_rest(&line, &o, &f);
    if (r == 0)
        r = sink_new(&o, &s, &f);
    if (r == 0) {
        sink_run(s);
        sink_free(s);
    }
    tls_context_unref(o.tls);
    return r < 0 ? failure_print(&f) : EX_OK;
}
