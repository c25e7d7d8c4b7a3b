/* clauses.h: the clauses of docs/protocol.md, from which the table is made when this is built. */
#ifndef CONFORM_CLAUSES_H
#define CONFORM_CLAUSES_H

#include <stdbool.h>
#include <stddef.h>

enum clause_who { WHO_SERVER = 1, WHO_CLIENT = 2, WHO_BOTH = 3, WHO_NONE = 0 };
enum clause_source { SOURCE_SPEC, SOURCE_PEERS, SOURCE_OUTBOARD };

struct clause {
    const char *id; /* VU-... */
    enum clause_who who;
    enum clause_source source; /* SOURCE_OUTBOARD: a recommendation */
    const char *text;
};

extern const struct clause clauses[];
extern const size_t n_clauses;

/* NULL: there is none. */
const struct clause *clause_find(const char *id);

#endif
