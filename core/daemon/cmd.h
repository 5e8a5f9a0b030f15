/* cmd.h - the subcommands: one function each, listed in main.c.
 *
 * Layer: daemon. argv[0] is the name of the subcommand. What is returned is the exit code
 * (sysexits.h). A command that fails says why in one message on stderr.
 *
 * Exit codes:
 *   0                  done
 *   64 EX_USAGE        the command line is wrong
 *   65 EX_DATAERR      what was given is no such thing (a message id); a spool of a newer version, or
 *                      damaged
 *   66 EX_NOINPUT      a file is missing or cannot be read; no such message or queue
 *   69 EX_UNAVAILABLE  the daemon is not running; an address to listen on is in use
 *   70 EX_SOFTWARE     out of memory, a bug of ours
 *   71 EX_OSERR        the system refused something
 *   73 EX_CANTCREAT    the spool, the log or a socket cannot be made
 *   75 EX_TEMPFAIL     the spool is in use by another process; the daemon did not answer in time
 *   77 EX_NOPERM       the user may not do that
 *   78 EX_CONFIG       the configuration is wrong
 *   130                ended by Ctrl-C, as a shell tells it; what was done stands
 */
#ifndef TERN_DAEMON_CMD_H
#define TERN_DAEMON_CMD_H

int cmd_run(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_test(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_queue(int argc, char **argv);
int cmd_reload(int argc, char **argv);
int cmd_why(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_etrn(int argc, char **argv);
int cmd_tls_report(int argc, char **argv);
int cmd_password(int argc, char **argv);
int cmd_spool(int argc, char **argv);
int cmd_sink(int argc, char **argv);

/* Where commands look for the configuration unless -c says otherwise. */
#define DEFAULT_CONFIG "/etc/tern/tern.lua"

#endif
