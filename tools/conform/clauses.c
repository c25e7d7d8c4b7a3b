/* clauses.c: the table of clauses, included as scripts/clauses prints it. */
#include "clauses.h"

#include <string.h>

#define CLAUSE(id, who, source, text) { id, WHO_##who, SOURCE_##source, text },
const struct clause clauses[] = {
#include "clauses-table.h"
};
#undef CLAUSE

const size_t n_clauses = sizeof(clauses) / sizeof(clauses[0]);

const struct clause *clause_find(const char *id)
{
    for (size_t i = 0; i < n_clauses; i++) {
        if (strcmp(clauses[i].id, id) == 0)
            return &clauses[i];
    }
    return NULL;
}
