/* server_transcript.h - dialogues with the SMTP server, written as text and replayed.
 *
 * A file (tests/transcripts/server/NAME.txt) holds sessions; each begins with a line "==== title".
 * A session has one item a line:
 *
 *     # remark
 *     O: starttls=1 size=1000      options: size recipients errors commands starttls require_tls
 *                                  tls etrn smtputf8 auth (bits) clear_auth require_auth
 *                                  auth_failures (errors is 20, size 10000 by default)
 *     M: whole                     the outcome depends on what arrives together: feed only whole
 *                                  flights (what talks too early is known by that alone)
 *     A: RCPT 550 5.1.1 no         answer for the next event of that kind; others get a yes
 *     C: text     c: text          bytes of the client, with and without CRLF
 *     S: text                      a line of the server; a '*' at its end stands for any rest
 *     E: event                     CONNECT, EHLO name, HELO name, MAIL <a@b> [size=n] [8bit] [utf8],
 *                                  RCPT <a@b>, DATA, END n, RESET, STARTTLS, ETRN [@#]node,
 *                                  AUTH mechanism [initial], RESPONSE [text], AUTH_END, CLOSE why
 *     B: text     b: text          octets of the message, with and without CRLF, among the events
 *     T:                           the TLS handshake is done
 *     X: 421 4.3.2 text | why      smtp_server_stop; "-" for no reply
 *
 * "C*3: text" stands for three such lines; this works for C, c, S, E, B and b. In the text: \r \n
 * \t \0 \\ \xHH; \{5:ab} is ababababab; \# is the number of the repetition, from 1.
 *
 * Consecutive C lines are one flight. It is replayed whole, byte by byte, and cut in two at every
 * point, with answers given at once and late; each time the events and the output must be the same.
 */
#ifndef TERN_TESTS_SERVER_TRANSCRIPT_H
#define TERN_TESTS_SERVER_TRANSCRIPT_H

#include "proto/smtp_server.h"

/* The answer that an event gets when none is written down. */
struct smtp_reply server_transcript_yes(enum smtp_server_event_type event);

/* Fails the running cmocka test with a report when the outcome is not the one written down. */
void server_transcript_check(const char *path);

#endif
