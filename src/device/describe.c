/* device/describe.c: the JSON object that tells launchers and management software what a device is and takes. */
#include <outboard/server.h>

#include "device/options.h"

#include <jansson.h>

/* The `type` of the description: what the device is to a user, by the base class of PCI's class code. The vhost-user
 * conventions, on which vfio-user's are based, call their back ends by type in the same way. */
static const char *type_of(uint32_t class_code)
{
    static const char *const types[] = {
        "unclassified",  "storage",   "network",    "display", "multimedia",  "memory", "bridge",
        "communication", "system",    "input",      "docking", "processor",   "serial", "wireless",
        "intelligent",   "satellite", "encryption", "signal",  "accelerator",
    };
    uint32_t base = class_code >> 16 & 0xff;

    return base < sizeof(types) / sizeof(types[0]) ? types[base] : "other";
}

/* Append and set, which when memory runs out free the container and return NULL; that goes through every later step, so
 * that the outermost one fails rather than describe a part of the device. */
static json_t *append(json_t *list, json_t *item)
{
    if (json_array_append_new(list, item) == 0)
        return list;
    json_decref(list);
    return NULL;
}

static json_t *set(json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) == 0)
        return object;
    json_decref(object);
    return NULL;
}

static json_t *describe_areas(const struct ob_area *areas)
{
    json_t *list = json_array();

    for (; areas != NULL && areas->size != 0; areas++)
        list = append(list, json_pack("{s:I, s:I, s:s, s:b}", "offset", (json_int_t)areas->off, "size",
                                      (json_int_t)areas->size, "kind",
                                      areas->flags & OB_AREA_RAM ? "memory"
                                      : areas->regs != NULL      ? "registers"
                                                                 : "callback",
                                      "mappable", (areas->flags & OB_AREA_MMAP) != 0));
    return list;
}

static json_t *describe_bars(const struct ob_device_class *cls)
{
    json_t *list = json_array();

    for (int i = 0; i < 6; i++) {
        const struct ob_bar *bar = &cls->bars[i];

        if (bar->size == 0)
            continue;
        list = append(list, json_pack("{s:i, s:I, s:b, s:b, s:b, s:o}", "index", i, "size", (json_int_t)bar->size, "io",
                                      (bar->flags & OB_BAR_IO) != 0, "64bit", (bar->flags & OB_BAR_64) != 0, "prefetch",
                                      (bar->flags & OB_BAR_PREFETCH) != 0, "areas", describe_areas(bar->areas)));
    }
    return list;
}

static json_t *describe_option(const struct ob_option *option)
{
    static const char *const types[] = {
        [OB_OPTION_STRING] = "string", [OB_OPTION_BOOL] = "bool",     [OB_OPTION_NUMBER] = "number",
        [OB_OPTION_SIZE] = "size",     [OB_OPTION_CHOICE] = "choice",
    };
    json_t *object = json_pack("{s:s, s:s, s:s, s:b}", "name", option->name, "type", types[option->type], "help",
                               option->help != NULL ? option->help : "", "required", ob_option_required(option));

    if (option->value != NULL)
        object = set(object, "default", json_string(option->value));
    if (option->min != 0 || option->max != 0) {
        /* jansson's integers are signed; the largest of them stands for every limit that is larger */
        object = set(object, "min", json_integer((json_int_t)(option->min & INT64_MAX)));
        object = set(object, "max", json_integer(option->max > INT64_MAX ? INT64_MAX : (json_int_t)option->max));
    }
    if (option->type == OB_OPTION_CHOICE) {
        json_t *choices = json_array();

        for (size_t i = 0; option->choices[i] != NULL; i++)
            choices = append(choices, json_string(option->choices[i]));
        object = set(object, "choices", choices);
    }
    return object;
}

static json_t *describe_options(const struct ob_option *options)
{
    json_t *list = json_array();

    for (; options != NULL && options->name != NULL; options++)
        list = append(list, describe_option(options));
    return list;
}

static json_t *describe_state(const struct ob_state *state)
{
    return json_pack("{s:I, s:I}", "size", (json_int_t)state->size, "version", (json_int_t)state->version);
}

char *ob_class_describe(const struct ob_device_class *cls)
{
    const struct ob_pci_id *id = &cls->pci;
    json_t *pci = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:b}", "vendor", id->vendor, "device", id->device,
                            "subsystem-vendor", id->subsystem_vendor, "subsystem-device", id->subsystem_device, "class",
                            (int)(id->class_code & 0xffffff), "revision", id->revision, "power-management",
                            id->power_management, "express", id->express);
    json_t *irqs = json_pack("{s:b, s:i, s:i}", "intx", cls->irqs.intx, "msi", cls->irqs.msi, "msix", cls->irqs.msix);
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:[s,s,s,s,s,s], s:o, s:o, s:o, s:o, s:o, s:o, s:I}", "type", type_of(id->class_code), "name",
        cls->name, "summary", cls->summary != NULL ? cls->summary : "", "features", "lifeline", "option", "ready-fd",
        "socket-group", "socket-mode", "socket-owner", "pci", pci, "irqs", irqs, "bars", describe_bars(cls), "options",
        describe_options(cls->options), "state", describe_state(&cls->state), "shared", describe_state(&cls->shared),
        "max-reply-ms", (json_int_t)(cls->max_reply_ms != 0 ? cls->max_reply_ms : 4000));
    char *text = object != NULL ? json_dumps(object, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;

    json_decref(object);
    return text;
}
