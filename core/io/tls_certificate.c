/* tls_certificate.c - certificates of ours: reading their files, and choosing one by name.
 *
 * Layer: io. Interface: tls_context.h. A name has at most one certificate of each type of key; the one that was
 * given first. The table of names is not changed once the context is shared, so looking needs no lock.
 */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <time.h>

#include "base/buf.h"
#include "io/tls_certificate.h"
#include "io/tls_context.h"

static const struct {
    int id;
    const char *name;
} key_types[TLS_KEY_TYPES] = {
    { EVP_PKEY_RSA, "RSA" },         { EVP_PKEY_RSA_PSS, "RSA-PSS" }, { EVP_PKEY_EC, "EC" },
    { EVP_PKEY_ED25519, "ED25519" }, { EVP_PKEY_ED448, "ED448" },
};

/* ---- reading --------------------------------------------------------------------------------- */

/* Nobody is asked for a passphrase: the daemon has no terminal. */
static int no_passphrase(char *dst, int size, int writing, void *asked)
{
    *(bool *)asked = true;
    return -1;
}

static int read_certificates(struct tls_certificate *c, const char *where, const char *word,
                             const char *file, char *error)
{
    bool asked = false;
    BIO *in = BIO_new_file(file, "r");
    X509 *next;

    if (!in)
        return tls_complain(error, where, word, file);
    c->cert = PEM_read_bio_X509_AUX(in, NULL, no_passphrase, &asked);
    c->chain = sk_X509_new_null();
    int r = c->cert && c->chain ? 0 : -EINVAL;
    while (r == 0 && (next = PEM_read_bio_X509(in, NULL, no_passphrase, &asked)))
        if (sk_X509_push(c->chain, next) <= 0) {
            X509_free(next);
            r = -ENOMEM;
        }
    BIO_free(in);
    if (r == 0 && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        r = -EINVAL; /* something that is not the end of the file ended it */
    if (r == -EINVAL)
        return tls_complain(error, where, word, file);
    ERR_clear_error();
    return r;
}

static int read_key(struct tls_certificate *c, const char *where, const char *file, char *error)
{
    bool asked = false;
    BIO *in = BIO_new_file(file, "r");

    if (in)
        c->key = PEM_read_bio_PrivateKey(in, NULL, no_passphrase, &asked);
    BIO_free(in);
    if (c->key) {
        ERR_clear_error();
        return 0;
    }
    if (!asked)
        return tls_complain(error, where, "key", file);
    ERR_clear_error();
    snprintf(
        error, TLS_ERROR_TEXT,
        "%s.key %s is encrypted: give a key without a passphrase, in a file that only this user can "
        "read",
        where, file);
    return -EINVAL;
}

static int check_pair(struct tls_certificate *c, const char *where, const char *word,
                      const char *cert, const char *key, char *error)
{
    int id = EVP_PKEY_get_base_id(c->key);

    for (c->type = 0; c->type < TLS_KEY_TYPES && key_types[c->type].id != id; c->type++)
        ;
    if (c->type == TLS_KEY_TYPES) {
        snprintf(error, TLS_ERROR_TEXT, "%s.key %s: a key of this type is of no use for TLS", where,
                 key);
        return -EINVAL;
    }
    if (X509_check_private_key(c->cert, c->key) != 1) {
        ERR_clear_error();
        snprintf(error, TLS_ERROR_TEXT,
                 "%s.key %s does not belong to %s.%s %s (key values mismatch): the file of the "
                 "certificate must begin with the one that was made for this key",
                 where, key, where, word, cert);
        return -EINVAL;
    }
    /* What a handshake would refuse (a key that is too short, say) is told now. */
    SSL_CTX *trial = SSL_CTX_new(TLS_server_method());
    if (!trial)
        return -ENOMEM;
    int ok = SSL_CTX_use_cert_and_key(trial, c->cert, c->key, c->chain, 1);
    SSL_CTX_free(trial);
    return ok == 1 ? 0 : tls_complain(error, where, word, cert);
}

/* ---- names ----------------------------------------------------------------------------------- */

static int add_name(struct tls_certificate *c, struct str name)
{
    char **grown;

    if (name.n == 0 || name.n > TLS_NAME_MAX || str_chr(name, '\0') >= 0)
        return 0;
    grown = realloc(c->names, (c->n_names + 1) * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    c->names = grown;
    c->names[c->n_names] = str_dup(name);
    if (!c->names[c->n_names])
        return -ENOMEM;
    for (char *p = c->names[c->n_names++]; *p; p++)
        *p = ascii_lower(*p);
    return 0;
}

static int add_common_name(struct tls_certificate *c)
{
    X509_NAME *subject = X509_get_subject_name(c->cert);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);

    if (at < 0)
        return 0;
    ASN1_STRING *s = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    return add_name(c, str_make(ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s)));
}

static int add_names_in_it(struct tls_certificate *c)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(c->cert, NID_subject_alt_name, NULL, NULL);
    int r = 0;

    for (int i = 0; i < sk_GENERAL_NAME_num(names) && r == 0; i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
        if (g->type == GEN_DNS)
            r = add_name(c, str_make(ASN1_STRING_get0_data(g->d.dNSName),
                                     (size_t)ASN1_STRING_length(g->d.dNSName)));
    }
    GENERAL_NAMES_free(names);
    ERR_clear_error();
    return r == 0 && c->n_names == 0 ? add_common_name(c) : r;
}

static int64_t seconds_of(const ASN1_TIME *t)
{
    struct tm tm;

    return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static int describe(struct tls_certificate *c, struct str file)
{
    buf_init(&c->text, 0);
    for (size_t i = 0; i < c->n_names; i++)
        buf_printf(&c->text, "%s%s", i ? ", " : "", c->names[i]);
    c->file = str_dup(file);
    c->info = (struct tls_certificate_info){
        .file = str_of(c->file),
        .names = buf_str(&c->text),
        .key_type = key_types[c->type].name,
        .not_before = seconds_of(X509_get0_notBefore(c->cert)),
        .not_after = seconds_of(X509_get0_notAfter(c->cert)),
    };
    return c->file && !c->text.failed ? 0 : -ENOMEM;
}

int tls_certificate_load(const char *where, const char *key_of_cert, struct str cert,
                         struct str key, const struct str *names, size_t n_names,
                         struct tls_certificate **ret, char *error)
{
    AUTO_FREE char *cert_file = str_dup(cert), *key_file = str_dup(key.n ? key : cert);
    struct tls_certificate *c = calloc(1, sizeof(*c));
    int r = c && cert_file && key_file ? 0 : -ENOMEM;

    ERR_clear_error();
    if (r == 0)
        r = read_certificates(c, where, key_of_cert, cert_file, error);
    if (r == 0)
        r = read_key(c, where, key_file, error);
    if (r == 0)
        r = check_pair(c, where, key_of_cert, cert_file, key_file, error);
    for (size_t i = 0; r == 0 && i < n_names; i++)
        r = add_name(c, names[i]);
    if (r == 0 && n_names == 0)
        r = add_names_in_it(c);
    if (r == 0)
        r = describe(c, cert);
    ERR_clear_error();
    if (r < 0) {
        tls_certificate_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

struct tls_certificate *tls_certificate_free(struct tls_certificate *c)
{
    if (!c)
        return NULL;
    X509_free(c->cert);
    sk_X509_pop_free(c->chain, X509_free);
    EVP_PKEY_free(c->key);
    for (size_t i = 0; i < c->n_names; i++)
        free(c->names[i]);
    free(c->names);
    free(c->file);
    free(c->place);
    buf_done(&c->text);
    free(c);
    return NULL;
}

/* ---- the table of names ---------------------------------------------------------------------- */

static struct tls_name *find(const struct tls_context *c, const char *name)
{
    struct tls_name *found = NULL;

    HASH_FIND(hh, c->names, name, strlen(name), found);
    return found;
}

int tls_names_add(struct tls_context *c, struct tls_certificate *cert)
{
    for (size_t i = 0; i < cert->n_names; i++) {
        struct tls_name *n = find(c, cert->names[i]);
        if (!n) {
            n = calloc(1, sizeof(*n));
            if (!n)
                return -ENOMEM;
            n->name = cert->names[i];
            HASH_ADD_KEYPTR(hh, c->names, n->name, strlen(n->name), n);
            if (!n->hh.tbl) {
                free(n);
                return -ENOMEM;
            }
        }
        if (!n->by_type[cert->type])
            n->by_type[cert->type] = cert;
    }
    return 0;
}

void tls_names_free(struct tls_context *c)
{
    struct tls_name *n, *next;

    HASH_ITER(hh, c->names, n, next) {
        HASH_DEL(c->names, n);
        free(n);
    }
}

/* The exact name, else with "*" for its first label; NULL: nobody has it. */
static const struct tls_name *name_asked(const struct tls_context *c, const char *asked)
{
    char name[TLS_NAME_MAX + 2];
    struct str s = str_of(asked);

    while (s.n && s.p[s.n - 1] == '.')
        s.n--;
    if (s.n == 0 || s.n > TLS_NAME_MAX || memchr(s.p, '*', s.n)) /* a wildcard is nobody's name */
        return NULL;
    for (size_t i = 0; i < s.n; i++)
        name[i] = ascii_lower(s.p[i]);
    name[s.n] = '\0';
    const struct tls_name *found = find(c, name);
    char *dot = strchr(name, '.');
    if (found || !dot || dot == name)
        return found;
    dot[-1] = '*';
    return find(c, dot - 1);
}

/* ---- choosing -------------------------------------------------------------------------------- */

int tls_certificates_set_default(struct tls_context *c)
{
    struct tls_certificate *first = c->certificates[0];

    for (int type = 0; type < TLS_KEY_TYPES; type++) {
        struct tls_certificate *use = type == first->type ? first : NULL;
        for (size_t i = 0; !use && i < first->n_names; i++)
            use = find(c, first->names[i])->by_type[type];
        if (use && SSL_CTX_use_cert_and_key(c->server, use->cert, use->key, use->chain, 1) != 1)
            return -EINVAL;
    }
    return 0;
}

int tls_certificates_choose(SSL *ssl, void *arg)
{
    const struct tls_context *c = arg;
    const char *asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const struct tls_name *n = asked ? name_asked(c, asked) : NULL;

    if (!n || n->by_type[c->certificates[0]->type] == c->certificates[0])
        return 1; /* the default, and what goes with it */
    SSL_certs_clear(ssl);
    for (int type = 0; type < TLS_KEY_TYPES; type++) {
        struct tls_certificate *use = n->by_type[type];
        if (use && SSL_use_cert_and_key(ssl, use->cert, use->key, use->chain, 1) != 1)
            return 0;
    }
    return 1;
}

int tls_certificates_acknowledge(SSL *ssl, int *alert, void *arg)
{
    const char *asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    return asked && name_asked(arg, asked) ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}
