/* settings.h - the configuration as C knows it: immutable, shared by all workers of a snapshot.
 *
 * Layer: engine. Filled in by lua/ from the configuration table (whose keys, types, units and defaults are
 * declared in lua/tern/schema.lua and written up in docs/configuration.md). Reference counted atomically.
 */
#ifndef TERN_ENGINE_SETTINGS_H
#define TERN_ENGINE_SETTINGS_H

#include <stdatomic.h>

#include "base/arena.h"
#include "base/netaddr.h"
#include "mail/rate.h"
#include "mail/schedule.h"

enum listen_tls { LISTEN_TLS_OFFER, LISTEN_TLS_NONE, LISTEN_TLS_REQUIRE, LISTEN_TLS_IMPLICIT };

enum listen_auth { LISTEN_AUTH_OFFER, LISTEN_AUTH_NONE, LISTEN_AUTH_REQUIRE };

enum listen_clients { LISTEN_CLIENTS_NONE, LISTEN_CLIENTS_ASK, LISTEN_CLIENTS_REQUIRE };

struct listen_settings {
    struct net_addr addr;
    struct str service; /* "smtp" (default), "submission", "odmr", "lmtp" */
    enum listen_tls tls;
    enum listen_auth auth;       /* OFFER where there is anything to authenticate by */
    bool chunking;               /* BDAT is offered */
    bool binarymime;             /* and BODY=BINARYMIME */
    bool requiretls;             /* inside TLS REQUIRETLS is offered */
    bool deliver_by;             /* DELIVERBY is offered */
    int64_t deliver_by_min_ms;   /* mode R must leave that much; default 0 */
    int64_t future_release_ms;   /* FUTURERELEASE up to that; 0: not offered */
    bool priority;               /* MT-PRIORITY is offered */
    struct str priority_profile; /* which levels, for EHLO; or empty. Lives for ever */
    struct str text;             /* as written, for logs */
    struct str socket;           /* name of the one that the service manager hands over; or empty */
    struct net_cidr *proxy; /* load balancers: from them connections begin with a PROXY header */
    size_t n_proxy;
    enum listen_clients clients; /* certificates of clients; as enum tls_clients */
    struct str client_ca;        /* file; empty: none can be verified */
    int64_t greeting_delay_ms; /* how long clients must be silent before the greeting; default 0 */
    uint32_t mode;             /* of a Unix socket: its permissions; default 0660 */
    struct str group;          /* of a Unix socket: whose it is; empty: that of the process */
};

/* One more certificate of ours. */
struct certificate_settings {
    struct str cert, key; /* files */
    struct str *names;    /* for which it is used; none: those in it */
    size_t n_names;
};

/* A certificate of ours that routes show to hosts. */
struct own_certificate_settings {
    struct str cert, key; /* files; key empty: in the file of the certificate */
    struct str place;     /* which route named it first: "tern.lua:12" */
};

/* What a local address may do, over all workers, and its name. */
struct source_settings {
    struct net_addr addr;
    struct str hostname;  /* in EHLO; empty: the router's */
    uint32_t concurrency; /* connections; 0: any number */
    struct rate rate;     /* transactions; none: as many as there are */
};

struct settings {
    atomic_uint refs;
    struct arena arena;   /* owns all strings and arrays below */
    struct str file;      /* the configuration file */
    uint64_t fingerprint; /* of all policy sources: changes when any of them does */
    struct str hostname;
    struct str spool;   /* directory */
    struct str control; /* path of the control socket; default <spool>/control.sock */
    struct str log;     /* "stdout", or a file */
    struct str user;    /* to run as when root starts it; empty: "tern" */
    bool sandbox;       /* default true */
    bool core_dumps;    /* default false */
    uint32_t workers;   /* at least 1 */

    struct listen_settings *listen;
    size_t n_listen;
    struct str tls_cert, tls_key, tls_ca; /* files; empty: none. tls_ca: default the system's */
    struct str tls_client_ca;             /* file; empty: clients are not asked for certificates */
    struct certificate_settings *certificates; /* chosen by SNI; tls_cert, or the first, else */
    size_t n_certificates;
    struct own_certificate_settings *own_certificates; /* for hosts */
    size_t n_own_certificates;

    struct {
        bool offered;         /* the table `auth` is there */
        struct str passwords; /* file; empty: none */
        uint32_t mechanisms; /* SASL_BITs; 0: what the file's entries allow, else PLAIN and LOGIN */
        bool without_tls;    /* PLAIN and LOGIN also in clear */
        uint32_t attempts;   /* that fail, per session; default 3 */
    } auth;

    struct net_addr *dns_servers; /* none: the system's */
    size_t n_dns_servers;
    bool allow_loopback_mx;
    bool dns_trust_ad;      /* the AD bit of resolvers elsewhere, too */
    int64_t dns_timeout_ms; /* of one look-up in all; default 10 s */

    struct net_cidr *relay_from;
    size_t n_relay_from;
    struct net_cidr
        *priority_from; /* clients whose MT-PRIORITY counts, besides those that may relay */
    size_t n_priority_from;
    struct net_cidr *xclient_from; /* clients that may say by XCLIENT who another is */
    size_t n_xclient_from;
    struct str *self_names; /* names that are us, besides hostname */
    size_t n_self_names;
    struct net_addr *self_addresses; /* besides listeners and interfaces (outside a NAT) */
    size_t n_self_addresses;
    struct source_settings *sources;
    size_t n_sources;

    struct {
        uint32_t connections; /* at once; 0: any number; default 100 */
        struct rate connection_rate, message_rate, recipient_rate; /* default: none */
        uint32_t ipv4_prefix, ipv6_prefix; /* bits that make a client; default 32, 64 */
        struct net_cidr *exempt;           /* default: loopback */
        size_t n_exempt;
    } clients;

    struct {
        uint64_t message_size;     /* octets; default 50M */
        uint32_t recipients;       /* per transaction; default 1000 */
        uint32_t messages;         /* MAIL in one session; 0 (default): any number */
        uint32_t sessions;         /* per worker; default 10000 */
        uint32_t errors;           /* per session; default 20 */
        uint32_t stress;           /* percentage of sessions; default 80 */
        uint32_t stress_errors;    /* per session, under stress; default 3 */
        uint64_t memory;           /* of all messages being received, per worker; default 256M */
        uint32_t received_headers; /* loop; default 100 */
        uint32_t etrn_per_session; /* requests; default 100 */
        uint32_t etrn_per_client;  /* requests in an hour, per worker; default 600 */
        uint32_t etrn_queues;      /* let go by one request; default 1000 */
    } limits;

    struct {
        int64_t command_ms, data_ms, session_ms; /* server: 5 m, 5 m (per block), 24 h */
        int64_t stress_ms; /* of the first two at most, under stress; default 10 s */
        int64_t connect_ms, greeting_ms, helo_ms, mail_ms, rcpt_ms, data_command_ms, body_ms,
            final_ms, quit_ms; /* client: 30 s, 5 m, 5 m, 5 m, 5 m, 2 m, 3 m, 10 m, 5 s */
        int64_t proxy_ms;      /* the PROXY header; default 5 s */
        int64_t hook_ms;       /* one hook, waiting included; default 30 s */
        int64_t shutdown_ms;   /* from SIGTERM to the end at most; default 10 s */
    } timeouts;

    struct {
        struct schedule retry;     /* default SCHEDULE_DEFAULT_TEXT */
        int64_t lifetime_ms;       /* default 5 d */
        int64_t warn_after_ms;     /* default 4 h; <0: never */
        uint32_t concurrency;      /* connections per queue at the start; default 5 */
        uint32_t max_concurrency;  /* default 20 */
        uint32_t connections;      /* outgoing, per worker; default 1000 */
        uint32_t host_connections; /* to one address and port, per worker; default 50 */
        uint32_t per_connection;   /* messages; default 100 */
        int64_t idle_ms;           /* a connection kept for reuse; default 2 s */
        int64_t connection_ms;     /* age at which it is not reused; default 300 s */
        uint32_t recipients;       /* in one outgoing transaction; default 100 */
        int64_t host_retry_ms; /* how long a host that failed is left alone at first; default 1 m */
        int64_t host_retry_max_ms; /* and at most; default 15 m */
    } queue;
};

struct settings *settings_new(void); /* with all defaults; hostname and spool empty */
struct settings *settings_ref(struct settings *s);
struct settings *settings_unref(struct settings *s);
/* Before it is shared: nothing of `clients` applies to that address. -ENOMEM. */
int settings_exempt(struct settings *s, const struct net_addr *addr) MUST_USE;
/* A certificate for hosts is named by its file: a route may show it. */
bool settings_has_certificate(const struct settings *s, struct str file);
bool settings_is_self_name(const struct settings *s, struct str name);

#endif
