/* tools/names.c: looks names up by libpci. The library is only asked for names: it is never initialized, which would
 * look for the buses of this machine. */
#include "names.h"
#include "tool.h"

#include <pci/pci.h>
#include <stdlib.h>

struct names {
    struct pci_access *access;
    int flags;
};

/* What libpci has to say is about its list, without which there are numbers. */
static void be_silent(char *format, ...)
{
}

static void __attribute__((noreturn)) give_up(char *format, ...)
{
    say("lspci: libpci cannot go on: %s", format);
    exit(1);
}

struct names *names_open(enum names_mode mode)
{
    struct names *names = calloc(1, sizeof(*names));

    if (names == NULL)
        return NULL;
    names->access = pci_alloc();
    names->access->error = give_up;
    names->access->warning = be_silent;
    names->access->debug = be_silent;
    names->access->id_lookup_mode = 0; /* no cache in the user's home, no questions to the network */
    /* udev's list is made from the same, and what libpci opens to ask for it is never closed */
    names->flags = PCI_LOOKUP_NO_HWDB;
    names->flags |= mode == NAMES_NUMBERS ? PCI_LOOKUP_NUMERIC : mode == NAMES_BOTH ? PCI_LOOKUP_MIXED : 0;
    return names;
}

void names_close(struct names *names)
{
    pci_cleanup(names->access);
    free(names);
}

const char *names_class(struct names *names, uint16_t class_id, char *text, int size)
{
    return pci_lookup_name(names->access, text, size, names->flags | PCI_LOOKUP_CLASS, class_id);
}

const char *names_device(struct names *names, uint16_t vendor, uint16_t device, char *text, int size)
{
    return pci_lookup_name(names->access, text, size, names->flags | PCI_LOOKUP_VENDOR | PCI_LOOKUP_DEVICE, vendor,
                           device);
}

const char *names_subsystem(struct names *names, uint16_t vendor, uint16_t device, uint16_t subsystem_vendor,
                            uint16_t subsystem, char *text, int size)
{
    return pci_lookup_name(names->access, text, size,
                           names->flags | PCI_LOOKUP_SUBSYSTEM | PCI_LOOKUP_VENDOR | PCI_LOOKUP_DEVICE, vendor, device,
                           subsystem_vendor, subsystem);
}

const char *names_interface(struct names *names, uint16_t class_id, uint8_t interface, char *text, int size)
{
    return pci_lookup_name(names->access, text, size, PCI_LOOKUP_NO_HWDB | PCI_LOOKUP_PROGIF | PCI_LOOKUP_NO_NUMBERS,
                           class_id, interface);
}
