/* tls_facts.c - what is known of a peer when a handshake is done. Layer: io. Interface: tls_context.h. */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "io/tls_context.h"

enum { TEXT_MAX = 1024, NAMES_MAX = 64, DIGEST = 32 };

/* RFC 2253 form: control bytes are escaped. */
static void add_name(struct buf *out, const X509_NAME *name)
{
    BIO *b = BIO_new(BIO_s_mem());
    char *text;

    if (!b)
        return;
    if (X509_NAME_print_ex(b, name, 0, XN_FLAG_RFC2253) >= 0) {
        long n = BIO_get_mem_data(b, &text);
        if (n > 0)
            buf_add_str(out, str_first(str_make(text, (size_t)n), TEXT_MAX));
    }
    BIO_free(b);
}

static void add_hex(struct buf *out, const uint8_t *digest)
{
    for (size_t i = 0; i < DIGEST; i++)
        buf_printf(out, "%02x", digest[i]);
}

/* Names with octets that are not printable are left out: they have no business there. */
static bool printable(const ASN1_STRING *s)
{
    const unsigned char *p = ASN1_STRING_get0_data(s);

    for (int i = 0; i < ASN1_STRING_length(s); i++)
        if (p[i] <= ' ' || p[i] >= 0x7f)
            return false;
    return ASN1_STRING_length(s) > 0 && ASN1_STRING_length(s) <= TEXT_MAX;
}

static void add_address(struct buf *out, const ASN1_STRING *s)
{
    struct net_addr a = { .family = ASN1_STRING_length(s) == 16 ? NET_IPV6 : NET_IPV4 };
    char text[NET_ADDR_TEXT];

    if (ASN1_STRING_length(s) != 4 && ASN1_STRING_length(s) != 16)
        return;
    memcpy(a.ip, ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
    buf_printf(out, "%s\n", net_addr_ip_text(&a, text));
}

static void add_names(struct buf *out, X509 *cert)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);

    for (int i = 0; i < MIN(sk_GENERAL_NAME_num(names), NAMES_MAX); i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
        if (g->type == GEN_IPADD)
            add_address(out, g->d.iPAddress);
        else if ((g->type == GEN_DNS || g->type == GEN_EMAIL || g->type == GEN_URI) &&
                 printable(g->d.ia5))
            buf_printf(out, "%.*s\n", ASN1_STRING_length(g->d.ia5),
                       (const char *)ASN1_STRING_get0_data(g->d.ia5));
    }
    GENERAL_NAMES_free(names);
    ERR_clear_error();
}

static void add_fingerprints(struct buf *out, X509 *cert, size_t *ret_end_of_first)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned char *key = NULL;
    int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &key);

    if (X509_digest(cert, EVP_sha256(), digest, NULL) == 1)
        add_hex(out, digest);
    *ret_end_of_first = buf_len(out);
    if (n > 0 && EVP_Digest(key, (size_t)n, digest, NULL, EVP_sha256(), NULL) == 1)
        add_hex(out, digest);
    OPENSSL_free(key);
}

static void describe(X509 *cert, struct buf *room, struct tls_facts *f)
{
    size_t at[6] = { 0 };

    add_name(room, X509_get_subject_name(cert));
    at[1] = buf_len(room);
    add_name(room, X509_get_issuer_name(cert));
    at[2] = buf_len(room);
    add_names(room, cert);
    at[3] = buf_len(room);
    add_fingerprints(room, cert, &at[4]);
    at[5] = buf_len(room);
    if (room->failed) {
        buf_clear(room);
        return;
    }
    struct str all = buf_str(room);
    struct str *to[] = { &f->subject, &f->issuer, &f->names, &f->fingerprint, &f->key_fingerprint };
    for (size_t i = 0; i < ARRAY_LEN(to); i++)
        *to[i] = str_make(all.p + at[i], at[i + 1] - at[i]);
}

void tls_facts_of(SSL *ssl, struct buf *room, struct tls_facts *ret)
{
    X509 *cert = SSL_get0_peer_certificate(ssl);

    buf_init(room, 0);
    *ret = (struct tls_facts){
        .version = str_of(SSL_get_version(ssl)),
        .cipher = str_of(SSL_get_cipher_name(ssl)),
        .verified = cert && SSL_get_verify_result(ssl) == X509_V_OK,
        .resumed = SSL_session_reused(ssl) == 1,
    };
    if (cert)
        describe(cert, room, ret);
}
