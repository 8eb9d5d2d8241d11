/* Primitives of oneDNN, kept by shape, and matrix products in bfloat16 with float32 sums. */
#include "onednn.h"

Functions onednn;
Handle onednn_engine, onednn_stream, onednn_own_room;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER; /* calls take turns: each of them uses every core */

/* Take the addresses of the functions above, in their order; whether products in bfloat16 are quick here. */
int onednn_open(void *const *addresses, int64_t count) {
    if (count * sizeof(void *) != sizeof(onednn)) return 0;
    memcpy(&onednn, addresses, sizeof(onednn));
    if (!(onednn.get_effective_cpu_isa() & BF16_INSTRUCTIONS)) return 0;
    return !onednn.primitive_attr_create(&onednn_own_room) &&
           !onednn.primitive_attr_set_scratchpad_mode(onednn_own_room, USER_SCRATCHPAD) &&
           !onednn.engine_create(&onednn_engine, CPU, 0) &&
           !onednn.stream_create(&onednn_stream, onednn_engine, DEFAULT_FLAGS);
}

int has_bf16_products(void) { return onednn_stream != 0; }

/* ---- primitives, kept by shape ---- */

#define KEPT 512 /* places of the table, a power of two */

static Primitive kept[KEPT];
static int used;
static void *room;
static size_t room_bytes;

static void release(Program *program) {
    if (program->primitive) onednn.primitive_destroy(program->primitive);
    if (program->desc) onednn.primitive_desc_destroy(program->desc);
}

static void forget(Primitive *p) {
    for (int i = 0; i < p->count; i++)
        if (i != p->own && p->layouts[i]) onednn.memory_desc_destroy(p->layouts[i]);
    if (p->plain) onednn.memory_desc_destroy(p->plain);
    release(&p->reorder);
    release(&p->main);
    free(p->packed);
    memset(p, 0, sizeof(*p));
}

/* The place of a key: its primitive, or a free one. When three quarters are used, all are forgotten. */
static Primitive *place_of(const int64_t *key) {
    if (used > KEPT * 3 / 4) {
        for (int i = 0; i < KEPT; i++) forget(&kept[i]);
        used = 0;
    }
    uint64_t hash = 0;
    for (int i = 0; i < KEY; i++) hash = (hash ^ (uint64_t)key[i]) * 0x9E3779B97F4A7C15ull;
    int place = hash >> 40 & (KEPT - 1);
    while (kept[place].key[0] && memcmp(kept[place].key, key, sizeof(kept[place].key))) place = (place + 1) & (KEPT - 1);
    return &kept[place];
}

Primitive *onednn_begin(const int64_t *key) {
    pthread_mutex_lock(&turn);
    return place_of(key);
}

int onednn_end(int code) {
    pthread_mutex_unlock(&turn);
    return code;
}

/* A plain layout for one more argument; null where oneDNN refuses. */
Handle onednn_describe(Primitive *p, int arg, int axes, const int64_t *sides, int type, const int64_t *strides) {
    Handle layout = 0;
    if (strides ? onednn.memory_desc_create_with_strides(&layout, axes, sides, type, strides)
                : onednn.memory_desc_create_with_tag(&layout, axes, sides, type, ANY_LAYOUT))
        return 0;
    p->args[p->count] = arg;
    p->layouts[p->count++] = layout;
    return layout;
}

/* The primitive of a descriptor, which then belongs to the program. */
int onednn_compile(Program *program, Handle desc) {
    program->desc = desc;
    program->room = onednn.primitive_desc_query_md(desc, QUERY_SCRATCHPAD, 0);
    program->bytes = program->room ? onednn.memory_desc_get_size((Handle)program->room) : 0;
    return onednn.primitive_create(&program->primitive, desc);
}

/* Note a primitive that was described, or forget what there is of it. */
int onednn_keep(Primitive *p, const int64_t *key, int failed) {
    if (failed) {
        forget(p);
        return REFUSED;
    }
    memcpy(p->key, key, sizeof(p->key));
    used++;
    return DONE;
}

/* Room for the call that has its turn; null where there is none. */
void *onednn_room(size_t bytes) {
    if (bytes > room_bytes) {
        free(room);
        room = aligned_alloc(64, ceil_div(bytes, 64) * 64);
        room_bytes = room ? bytes : 0;
    }
    return room;
}

/* Execute with one address for every argument, in the order of their descriptions, and room for the program. */
int onednn_execute(const Program *program, int count, const int *args, const Handle *layouts, void *const *data,
                   void *room) {
    Argument arguments[OPERANDS + 1] = {{0, 0}};
    int failed = 0, all = count + (program->bytes > 0);
    for (int i = 0; i < all && !failed; i++) {
        arguments[i].arg = i < count ? args[i] : SCRATCHPAD;
        failed = onednn.memory_create(&arguments[i].memory, i < count ? layouts[i] : (Handle)program->room,
                                      onednn_engine, i < count ? data[i] : room);
    }
    failed = failed || onednn.primitive_execute(program->primitive, onednn_stream, all, arguments);
    for (int i = 0; i < all; i++)
        if (arguments[i].memory) onednn.memory_destroy(arguments[i].memory);
    return failed ? REFUSED : DONE;
}

/* ---- products ---- */

/* sides of a matrix with `axes` axes (a batch before it, or none), and the strides of it or of its transpose */
static void matrix(int axes, int64_t batch, int64_t rows, int64_t cols, int transposed, int64_t *sides,
                   int64_t *strides) {
    int64_t all_sides[3] = {batch, rows, cols};
    int64_t all_strides[3] = {rows * cols, transposed ? 1 : cols, transposed ? rows : 1};
    memcpy(sides, all_sides + 3 - axes, axes * sizeof(int64_t));
    memcpy(strides, all_strides + 3 - axes, axes * sizeof(int64_t));
}

static int describe_product(Primitive *p, const int64_t *key) {
    int64_t batch_a = key[1], batch_b = key[2], m = key[3], n = key[4], k = key[5], bias = key[8];
    int64_t batch = max_of(batch_a, batch_b), sides[3], strides[3];
    int axes = batch > 1 || bias == 2 ? 3 : 2; /* of matrices alone, a bias of rows leaves oneDNN its slow reference */
    Handle a, b, y, desc, row = 0, shift = 0, attributes = 0, after = 0;
    matrix(axes, batch_a, m, k, key[6], sides, strides);
    a = onednn_describe(p, SRC, axes, sides, BF16, strides);
    matrix(axes, batch_b, k, n, key[7], sides, strides);
    b = onednn_describe(p, WEIGHTS, axes, sides, BF16, strides);
    matrix(axes, batch, m, n, 0, sides, strides);
    y = onednn_describe(p, DST, axes, sides, key[9] ? BF16 : F32, strides);
    matrix(axes, 1, bias == 2 ? m : 1, bias == 2 ? 1 : n, 0, sides, strides);
    if (bias == 1) shift = onednn_describe(p, BIAS, axes, sides, F32, strides);
    if (bias == 2) row = onednn_describe(p, POST_OP, axes, sides, F32, strides);
    int failed = !a || !b || !y || (bias && !shift && !row) || onednn.primitive_attr_create(&attributes) ||
                 onednn.post_ops_create(&after) || (row && onednn.post_ops_append_binary(after, BINARY_ADD, row)) ||
                 (key[10] && onednn.post_ops_append_eltwise(after, key[10] == 1 ? GELU_ERF : GELU_TANH, 0, 0)) ||
                 onednn.primitive_attr_set_post_ops(attributes, after) ||
                 onednn.primitive_attr_set_scratchpad_mode(attributes, USER_SCRATCHPAD) ||
                 onednn.matmul_primitive_desc_create(&desc, onednn_engine, a, b, shift, y, attributes) ||
                 onednn_compile(&p->main, desc);
    if (after) onednn.post_ops_destroy(after);
    if (attributes) onednn.primitive_attr_destroy(attributes);
    p->own = -1;
    return onednn_keep(p, key, failed);
}

static int product(const uint16_t *a, const uint16_t *b, const float *bias, void *y, int64_t batch_a, int64_t batch_b,
                   int64_t m, int64_t n, int64_t k, int64_t transposed_a, int64_t transposed_b, int64_t bias_of_rows,
                   int64_t act, int64_t narrow) {
    if (!onednn_stream) return NO_PRODUCTS;
    if (m < 1 || n < 1 || k < 1 || batch_a < 1 || batch_b < 1) return BAD_SIZES;
    if (batch_a != batch_b && batch_a > 1 && batch_b > 1) return BAD_SIZES;
    int64_t key[KEY] = {PRODUCT, batch_a, batch_b, m, n, k, transposed_a, transposed_b, bias ? 1 + bias_of_rows : 0,
                        narrow, act};
    void *data[OPERANDS] = {(void *)a, (void *)b, y, (void *)bias};
    Primitive *p = onednn_begin(key);
    int code = p->key[0] ? DONE : describe_product(p, key);
    void *own = code == DONE ? onednn_room(p->main.bytes) : 0;
    if (code == DONE && p->main.bytes && !own) code = NO_MEMORY;
    if (code == DONE) code = onednn_execute(&p->main, p->count, p->args, p->layouts, data, own);
    return onednn_end(code);
}

/* y [batch, m, n] = act(a [batch_a, m, k] b [batch_b, k, n] + bias), batch the larger of the two, the other that or 1.
 * transposed_a: a is [batch_a, k, m]; transposed_b: b is [batch_b, n, k]. bias is of n numbers, or, with bias_of_rows, of
 * m. act: 0 none, 1 GELU by erf, 2 by tanh. */
int bf16_product(const uint16_t *a, const uint16_t *b, const float *bias, float *y, int64_t batch_a, int64_t batch_b,
                 int64_t m, int64_t n, int64_t k, int64_t transposed_a, int64_t transposed_b, int64_t bias_of_rows,
                 int64_t act) {
    return product(a, b, bias, y, batch_a, batch_b, m, n, k, transposed_a, transposed_b, bias_of_rows, act, 0);
}

/* The same with y in bfloat16. */
int bf16_product_narrow(const uint16_t *a, const uint16_t *b, const float *bias, uint16_t *y, int64_t batch_a,
                        int64_t batch_b, int64_t m, int64_t n, int64_t k, int64_t transposed_a, int64_t transposed_b,
                        int64_t bias_of_rows, int64_t act) {
    return product(a, b, bias, y, batch_a, batch_b, m, n, k, transposed_a, transposed_b, bias_of_rows, act, 1);
}
