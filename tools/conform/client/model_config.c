/* model_config.c: configuration space of the model device, and which of its bits can be written. */
#include <string.h>

#include "model.h"

static void put16(uint8_t *at, uint16_t value)
{
    memcpy(at, &value, sizeof(value));
}

static void put32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof(value));
}

static void init_header(uint8_t *config, uint8_t *mask)
{
    put16(config + 0x00, MODEL_VENDOR);
    put16(config + 0x02, MODEL_DEVICE);
    put16(mask + 0x04, 0x0547);
    put16(config + 0x06, 0x0010); /* a list of capabilities */
    config[0x08] = 1;
    config[0x0b] = 0xff; /* of no class */
    mask[0x0c] = 0xff;
    put32(mask + 0x10, 0xfffff000);
    put32(config + 0x14, 1); /* ports */
    put32(mask + 0x14, 0xffffffe0);
    put32(mask + 0x18, 0xffff0000);
    put32(config + 0x20, 0xc); /* 64 bits, prefetchable */
    put32(mask + 0x20, 0xffffc000);
    put32(mask + 0x24, 0xffffffff);
    put16(config + 0x2c, MODEL_VENDOR);
    put16(config + 0x2e, MODEL_DEVICE);
    config[0x34] = 0x40;
    mask[0x3c] = 0xff;
    config[0x3d] = 1; /* INTA */
}

static void init_capabilities(uint8_t *config, uint8_t *mask)
{
    put16(config + 0x40, 0x5001); /* power management */
    put16(config + 0x42, 0x0003);
    put16(mask + 0x44, 0x0003);
    put16(config + 0x50, 0x7005); /* MSI: four messages, 64 bits */
    put16(config + 0x52, 0x0084);
    put16(mask + 0x52, 0x0071);
    put32(mask + 0x54, 0xfffffffc);
    put32(mask + 0x58, 0xffffffff);
    put16(mask + 0x5c, 0xffff);
    put16(config + 0x70, 0x8011); /* MSI-X, in region 0 */
    put16(config + 0x72, MODEL_VECTORS - 1);
    put16(mask + 0x72, 0xc000);
    put32(config + 0x74, 0x800);
    put32(config + 0x78, 0xc00);
    put16(config + 0x80, 0x0010); /* Express: an endpoint, version 2 */
    put16(config + 0x82, 0x0002);
    put16(mask + 0x88, 0x70ef);
    put32(config + 0x100, 0x00010003); /* serial number */
    put32(config + 0x104, MODEL_ID);
}

void model_init_config(struct model *model)
{
    memset(model->config, 0, sizeof(model->config));
    memset(model->config_mask, 0, sizeof(model->config_mask));
    init_header(model->config, model->config_mask);
    init_capabilities(model->config, model->config_mask);
}
