/* What checking and encoding share: is a decoded message, of whatever origin, one that the specification allows? */
#ifndef OB_PROTOCOL_RULES_H
#define OB_PROTOCOL_RULES_H

#include "protocol/message.h"

/* Of a request or reply with header.command, u, tail, tail_size and nfds filled in. The table has to know the command.
 * 0 or -EINVAL. `request` may be NULL: then nothing is compared with it. */
int ob_request_rules(const struct ob_message *m, const struct ob_limits *limits);
int ob_reply_rules(const struct ob_message *m, const struct ob_message *request, const struct ob_limits *limits);

#endif
