/* load.h - a configuration as the daemon needs it: settings, policies, certificates, all checked.
 *
 * Layer: daemon. For the start, for each reload, and for `tern check`.
 */
#ifndef TERN_DAEMON_LOAD_H
#define TERN_DAEMON_LOAD_H

#include "daemon/failure.h"
#include "daemon/passwords.h"
#include "engine/settings.h"
#include "io/tls.h"
#include "lua/policy.h"

struct loaded {
    struct policy_source *source;
    struct settings *settings;
    struct tls_context *tls;
    struct password_list *passwords; /* NULL: none is configured */
};

/* All of it. journal: for what scripts log while loading, or NULL. 0, or -1 with *f; then *ret is empty. */
int load_configuration(const char *path, struct port_journal *journal, struct loaded *ret,
                       struct failure *f) MUST_USE;
/* Settings and policies only: no certificate and no password file is read. */
int load_policies(const char *path, struct port_journal *journal, struct loaded *ret,
                  struct failure *f) MUST_USE;
/* The same, by other means than the disk alone, which must outlive what is loaded. */
int load_source(const char *path, const struct policy_files *files, struct port_journal *journal,
                struct loaded *ret, struct failure *f) MUST_USE;
/* What else a configuration needs, in two steps: the first reads no further file, the second reads certificates
 * and passwords. load_configuration has done both. */
int load_check(const struct loaded *l, struct failure *f) MUST_USE;
int load_credentials(struct loaded *l, struct failure *f) MUST_USE;
void loaded_done(struct loaded *l);
/* Something is wrong with the dates of a certificate that serves all the same: dst (LOAD_TROUBLE_TEXT bytes)
 * says what. */
enum { LOAD_TROUBLE_TEXT = 768 };
bool load_certificate_trouble(const struct tls_certificate_info *c, int64_t now_s, char *dst);
/* Reads the configuration for the path of its control socket alone: what commands need to find the
 * daemon. *ret is the caller's to free. */
int load_control_path(const char *config, char **ret, struct failure *f) MUST_USE;
void failure_from_policy(struct failure *f, const struct policy_error *err);

#endif
