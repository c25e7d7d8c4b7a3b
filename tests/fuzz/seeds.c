/* Writes first inputs of the targets that run a script (script.c) into a folder: for each command of the table a
 * request of it, right as far as zeros are, and one with descriptors; and each step by itself with small operands. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/message.h"

enum { STEPS = 32, STEP_COMPOSED = 0, STEP_WITH_FDS = 3 };

static const char *folder;

static void write_seed(const char *kind, unsigned number, const unsigned char *bytes, size_t size)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/seed-%s-%u", folder, kind, number);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) {
        fprintf(stderr, "seeds: cannot write %s\n", path);
        exit(1);
    }
}

/* How the run begins; the step; then command, mode and a byte for each field, as compose() takes them. */
static void command_seeds(unsigned char number)
{
    unsigned char bytes[64] = { 0, STEP_COMPOSED, number };
    size_t size = 4 + ob_commands[number].request.nfields + 2u;

    write_seed("command", number, bytes, size);
    /* One descriptor: an eventfd. */
    unsigned char more[64] = { 1, STEP_WITH_FDS, 1, 0, number };
    write_seed("descriptor", number, more, size + 2);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: seeds FOLDER\n");
        return 2;
    }
    folder = argv[1];
    for (unsigned char number = 0; number < OB_COMMAND_END; number++)
        if (ob_commands[number].name)
            command_seeds(number);
    for (unsigned char step = 0; step < STEPS; step++) {
        const unsigned char bytes[] = { step, step, 4, 0x10, 0x21, 3, step, 1, 0x22, 1 };
        write_seed("step", step, bytes, sizeof(bytes));
    }
    return 0;
}
