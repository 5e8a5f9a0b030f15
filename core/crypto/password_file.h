/* password_file.h - a file of users and their password entries, read whole.
 *
 * Layer: crypto. One user a line, "user:entry" (password.h); blank lines and those that begin with
 * '#' say nothing. The user is what stands in front of the first colon: 1 to 255 octets of UTF-8
 * without control characters. Immutable once parsed: any thread may look users up.
 */
#ifndef TERN_CRYPTO_PASSWORD_FILE_H
#define TERN_CRYPTO_PASSWORD_FILE_H

#include "crypto/password.h"

enum { PASSWORD_FILE_MAX_USER = 255, PASSWORD_FILE_ERROR = 256 };

struct password_file;

/* Copies the text. 0; -EINVAL with *ret_line and ret_why (PASSWORD_FILE_ERROR bytes), which names no
 * secret; -ENOMEM. */
int password_file_parse(struct str text, struct password_file **ret, unsigned *ret_line,
                        char *ret_why);
struct password_file *password_file_free(struct password_file *f); /* wipes; NULL is fine */

size_t password_file_count(const struct password_file *f);
/* Every entry is the password itself; every entry is that or SCRAM's keys. False of an empty file. */
bool password_file_all_plain(const struct password_file *f);
bool password_file_all_scram(const struct password_file *f);

/* True: *ret is the user's entry, which lives as long as the file. */
bool password_file_find(const struct password_file *f, struct str user, struct password_entry *ret);
/* The entry in which a user that does not exist is looked for: one of the file's, always the same
 * for the same name, so that strangers take as long as users do. scram: of those that serve it;
 * plain: of those that are the password. False: the file has none. */
enum password_want { PASSWORD_WANT_ANY, PASSWORD_WANT_SCRAM, PASSWORD_WANT_PLAIN };
bool password_file_decoy(const struct password_file *f, struct str user, enum password_want want,
                         struct password_entry *ret);

#endif
