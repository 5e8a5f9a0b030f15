/* certificate.h - certificates for tests, made when they run. */
#ifndef TERN_TESTS_IO_CERTIFICATE_H
#define TERN_TESTS_IO_CERTIFICATE_H

/* Two PEM files. Self-signed, and a certificate authority. names: "DNS:a.example,IP:127.0.0.1".
 * Valid from now + from_s to now + to_s seconds. */
void certificate_write(const char *cert_file, const char *key_file, const char *common_name,
                       const char *names, long from_s, long to_s);

#endif
