/* smtp_client_mail.c - a transaction of the SMTP client: MAIL, RCPT, DATA, the message, and what
 * the replies to them mean.
 *
 * Layer: proto. See smtp_client_impl.h.
 */
#include "proto/smtp_client_impl.h"

/* ---------------------------------------------------------------- replies ---- */

static void transaction_told(struct smtp_client *c)
{
    client_push(c, SMTP_CLIENT_TRANSACTION_DONE, c->stage);
    c->told = true;
}

/* A host that cannot forget a transaction is of no use for the next one; the message that waits
 * behind is not to blame. */
void client_on_rset(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (smtp_reply_positive(reply))
        c->need_rset = false;
    else if (reply->code < 400)
        client_fail_wrong(c, SMTP_STAGE_READY, reply);
    else
        client_fail_reply(c, SMTP_STAGE_READY, reply);
}

void client_on_mail(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (smtp_reply_positive(reply)) {
        c->need_rset = true;
    } else if (reply->code < 400) {
        client_fail_wrong(c, SMTP_STAGE_MAIL, reply);
    } else {
        client_drop_plan(c);
        client_push_reply(c, SMTP_CLIENT_MAIL_RESULT, SMTP_STAGE_MAIL, SIZE_MAX, reply);
        transaction_told(c);
    }
}

/* Who is accepted is known, and nothing else is under way. */
static void begin_chunk(struct smtp_client *c)
{
    if (buf_printf(&c->out, "BDAT %llu LAST\r\n", (unsigned long long)c->left) < 0) {
        client_fail_error(c, SMTP_STAGE_DATA, -ENOMEM);
        return;
    }
    c->stage = SMTP_STAGE_BODY;
    client_push(c, SMTP_CLIENT_NEED_BODY, SMTP_STAGE_BODY);
}

void client_on_rcpt(struct smtp_client *c, const struct smtp_reply *reply)
{
    size_t i = c->next_recipient++;
    bool positive = smtp_reply_positive(reply);

    if (!positive && reply->code < 400) {
        client_fail_wrong(c, SMTP_STAGE_RCPT, reply);
        return;
    }
    if (c->told) { /* MAIL was refused */
        c->stray_accepted |= positive;
        return;
    }
    if (positive) {
        c->n_accepted++;
        if (c->accepted)
            c->accepted[i / 8] |= (uint8_t)(1u << i % 8);
    }
    client_push_reply(c, SMTP_CLIENT_RCPT_RESULT, SMTP_STAGE_RCPT, i, reply);
    if (c->next_recipient < c->n_recipients)
        return;
    if (c->n_accepted == 0 || c->ask_only) {
        client_drop_plan(c);
        transaction_told(c);
    } else if (c->bdat) {
        begin_chunk(c);
    }
}

/* 354 though there is nobody to send to (RFC 2920 §3.1): a lone dot, and its reply means nothing.
 * Not where the dot could make an empty message for someone, nor in LMTP, which owes no reply to a
 * dot without recipients: there the connection ends. */
static void unwanted_data(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (c->opt.lmtp || c->stray_accepted)
        client_fail_wrong(c, SMTP_STAGE_DATA, reply);
    else
        client_send_line(c, KIND_DISCARD, ".", STR_NONE);
}

void client_on_data(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (smtp_reply_positive(reply)) {
        client_fail_wrong(c, SMTP_STAGE_DATA, reply);
    } else if (reply->code >= 400) {
        if (c->told)
            return;
        client_push_reply(c, SMTP_CLIENT_RESULT, SMTP_STAGE_DATA, SIZE_MAX, reply);
        transaction_told(c);
    } else if (c->told) {
        unwanted_data(c, reply);
    } else {
        c->stage = SMTP_STAGE_BODY;
        c->stuffing = (struct smtp_stuffing){ .line_start = true };
        client_push(c, SMTP_CLIENT_NEED_BODY, SMTP_STAGE_BODY);
    }
}

/* The next accepted recipient: LMTP answers for each of them in order (RFC 2033 §4.2). */
static size_t take_accepted(struct smtp_client *c)
{
    size_t i = c->next_recipient;

    while (!(c->accepted[i / 8] >> i % 8 & 1))
        i++;
    c->next_recipient = i + 1;
    return i;
}

/* LMTP: of those whose reply is 421 the host says no more than that, but others may still have theirs: they are settled
 * by it, and not sent to once more. */
bool client_take_farewell(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (!c->opt.lmtp || !c->expected.n)
        return false;
    struct str text = str_first(reply->text, CLIENT_MAX_SAID);

    (void)take_accepted(c);
    memcpy(c->said, text.p, text.n);
    c->farewell = (struct smtp_reply){ 421, reply->enhanced, str_make(c->said, text.n) };
    return true;
}

void client_on_final(struct smtp_client *c, const struct smtp_reply *reply)
{
    if (reply->code >= 300 && reply->code < 400) {
        client_fail_wrong(c, SMTP_STAGE_FINAL, reply);
        return;
    }
    client_push_reply(c, SMTP_CLIENT_RESULT, SMTP_STAGE_FINAL,
                      c->opt.lmtp ? take_accepted(c) : SIZE_MAX, reply);
    c->final_refused |= !smtp_reply_positive(reply);
    if (c->expected.n)
        return;
    if (c->farewell.code) {
        client_fail_reply(c, SMTP_STAGE_FINAL, &c->farewell);
        return;
    }
    /* What a refused BDAT has left behind is not known (RFC 3030 section 2). */
    c->need_rset = c->bdat && c->final_refused;
    transaction_told(c);
}

void client_on_discard(struct smtp_client *c, const struct smtp_reply *reply)
{
    (void)reply;
    c->need_rset = false;
}

/* ------------------------------------------------------ what the caller does ---- */

static int check_mail(const struct smtp_client *c, const struct smtp_client_mail *mail)
{
    if (mail->n_recipients == 0 || !smtp_client_address_ok(mail->sender, mail->smtputf8))
        return -EINVAL;
    for (size_t i = 0; i < mail->n_recipients; i++)
        if (mail->recipients[i].n == 0 ||
            !smtp_client_address_ok(mail->recipients[i], mail->smtputf8))
            return -EINVAL;
    if (mail->body == SMTP_BODY_8BITMIME && !c->caps.eightbit)
        return -EOPNOTSUPP;
    if (mail->body == SMTP_BODY_BINARYMIME && !(c->caps.binarymime && mail->bdat))
        return -EOPNOTSUPP;
    if (mail->bdat && !c->caps.chunking)
        return -EOPNOTSUPP;
    if (mail->smtputf8 && !c->caps.smtputf8)
        return -EOPNOTSUPP;
    if (mail->requiretls && !(c->caps.requiretls && c->tls))
        return -EOPNOTSUPP;
    if (c->caps.size_limit && mail->size > c->caps.size_limit)
        return -EMSGSIZE;
    return 0;
}

static void add_path(struct buf *b, struct str command, struct str path)
{
    buf_add_str(b, command);
    buf_add_str(b, path);
    buf_add_char(b, '>');
}

static void plan_rcpt(struct smtp_client *c, const struct smtp_client_mail *mail, size_t i)
{
    struct buf *b = &c->held;

    add_path(b, STR("RCPT TO:<"), mail->recipients[i]);
    if (c->caps.dsn && mail->rcpt_dsn)
        smtp_dsn_write_rcpt(&mail->rcpt_dsn[i], mail->smtputf8, b);
    buf_add(b, "\r\n", 2);
}

/* Writes the commands of the transaction to held, their marks to planned. */
static int plan(struct smtp_client *c, const struct smtp_client_mail *mail)
{
    struct buf *b = &c->held;

    if (c->need_rset) {
        buf_add_str(b, STR("RSET\r\n"));
        client_mark(&c->planned, KIND_RSET, 1);
    }
    add_path(b, STR("MAIL FROM:<"), mail->sender);
    if (c->caps.size && mail->size) {
        buf_add_str(b, STR(" SIZE="));
        buf_add_int(b, (int64_t)mail->size);
    }
    if (mail->body == SMTP_BODY_8BITMIME)
        buf_add_str(b, STR(" BODY=8BITMIME"));
    if (mail->body == SMTP_BODY_BINARYMIME)
        buf_add_str(b, STR(" BODY=BINARYMIME"));
    if (mail->smtputf8)
        buf_add_str(b, STR(" SMTPUTF8"));
    if (mail->requiretls)
        buf_add_str(b, STR(" REQUIRETLS"));
    if (c->caps.dsn)
        smtp_dsn_write_mail(&mail->dsn, b);
    if (c->caps.deliver_by)
        smtp_by_write(&mail->by, b);
    if (c->caps.priority && mail->prioritized)
        smtp_priority_write(mail->priority, b);
    buf_add_str(b, STR("\r\n"));
    client_mark(&c->planned, KIND_MAIL, 1);
    for (size_t i = 0; i < mail->n_recipients; i++)
        plan_rcpt(c, mail, i);
    client_mark(&c->planned, KIND_RCPT, mail->n_recipients);
    if (!mail->ask_only && !mail->bdat) {
        buf_add_str(b, STR("DATA\r\n"));
        client_mark(&c->planned, KIND_DATA, 1);
    }
    return b->failed;
}

int smtp_client_begin(struct smtp_client *c, const struct smtp_client_mail *mail)
{
    int r;

    if (c->stage != SMTP_STAGE_READY || c->n_pending || c->closed || c->lost || c->quitting)
        return -EBUSY;
    r = check_mail(c, mail);
    if (r == 0)
        r = client_check_limits(c, mail);
    if (r < 0)
        return r;
    free(c->accepted);
    c->accepted = NULL;
    if (c->opt.lmtp && !(c->accepted = calloc(mail->n_recipients / 8 + 1, 1)))
        return -ENOMEM;
    r = plan(c, mail);
    if (r == 0)
        r = client_release(c);
    if (r < 0) {
        client_drop_plan(c);
        c->out.failed = 0; /* nothing of it was written */
        return r;
    }
    /* What came before the first command was sent cannot be its reply. */
    c->stale = c->mid_reply || buf_len(&c->in) > 0;
    c->mails++;
    c->n_recipients = mail->n_recipients;
    c->ask_only = mail->ask_only;
    c->bdat = mail->bdat;
    c->left = mail->size;
    c->next_recipient = c->n_accepted = 0;
    c->told = c->stray_accepted = c->final_refused = false;
    return 0;
}

/* Half a message must never get its dot: running out of memory ends the connection. */
static int body_written(struct smtp_client *c, int r)
{
    if (r < 0) {
        buf_clear(&c->out);
        c->lost = r;
    }
    return r;
}

int smtp_client_body(struct smtp_client *c, const void *bytes, size_t n)
{
    if (c->closed || c->lost)
        return -EPIPE;
    if (c->stage != SMTP_STAGE_BODY || c->n_pending)
        return -EBUSY;
    if (!c->bdat)
        return body_written(c, smtp_stuff(&c->stuffing, str_make(bytes, n), &c->out));
    if (n > c->left)
        return body_written(c, -EMSGSIZE);
    c->left -= n;
    return body_written(c, buf_add(&c->out, bytes, n));
}

/* The message is not given away before there is room for the word on it: a delivery that nobody hears of is made once
 * more. */
static int reserve_reply(struct smtp_client *c)
{
    return buf_room(&c->in, CLIENT_FINAL_ROOM) ? smtp_reply_reader_reserve(&c->reader) : -ENOMEM;
}

int smtp_client_body_end(struct smtp_client *c)
{
    int r;

    if (c->closed || c->lost)
        return -EPIPE;
    if (c->stage != SMTP_STAGE_BODY || c->n_pending)
        return -EBUSY;
    r = reserve_reply(c);
    if (r == 0 && c->bdat)
        r = c->left ? -EMSGSIZE : 0;
    else if (r == 0)
        r = smtp_stuff_end(&c->stuffing, &c->out);
    r = body_written(c, r);
    if (r < 0)
        return r;
    client_mark(&c->expected, KIND_FINAL, c->opt.lmtp ? c->n_accepted : 1);
    c->next_recipient = 0;
    client_update_stage(c);
    return 0;
}
