/* Convolutions of [batch, height, width, chans] in bfloat16 with float32 sums, and their gradients. */
#include "onednn.h"

typedef struct {
    int64_t batch, chans, height, width, out_chans, kernel_h, kernel_w, stride, pad_h, pad_w, out_h, out_w;
} Shape;

/* The shape of these sizes; false where there is no such convolution. */
static int fill_shape(Shape *s, const int64_t *sizes) {
    memcpy(s, sizes, 10 * sizeof(int64_t));
    for (int i = 0; i < 8; i++)
        if (sizes[i] < 1) return 0;
    if (s->pad_h < 0 || s->pad_w < 0) return 0;
    s->out_h = output_side(s->height, s->kernel_h, s->stride, s->pad_h);
    s->out_w = output_side(s->width, s->kernel_w, s->stride, s->pad_w);
    return s->out_h > 0 && s->out_w > 0;
}

static Handle describe_maps(Primitive *p, int arg, int type, int64_t batch, int64_t chans, int64_t height,
                            int64_t width) {
    int64_t sides[4] = {batch, chans, height, width};
    int64_t strides[4] = {height * width * chans, 1, width * chans, chans};
    return onednn_describe(p, arg, 4, sides, type, strides);
}

/* The primitive lays the weights out as it likes: a reorder to that layout, or from it, and room for them. */
static int describe_weights(Primitive *p, int kind, const int64_t *sides, int parts) {
    int64_t plain[4] = {sides[1] * sides[2] * sides[3], sides[2] * sides[3], sides[3], 1};
    Handle desc = 0, to, from;
    int query = kind == OF_WEIGHT ? QUERY_DIFF_WEIGHTS : QUERY_WEIGHTS;
    onednn.memory_desc_destroy(p->layouts[p->own]);
    p->layouts[p->own] = onednn.primitive_desc_query_md(p->main.desc, query, 0);
    if (onednn.memory_desc_create_with_strides(&p->plain, 4, sides, F32, plain)) return 1;
    from = kind == OF_WEIGHT ? p->layouts[p->own] : p->plain;
    to = kind == OF_WEIGHT ? p->plain : p->layouts[p->own];
    p->size = ceil_div(onednn.memory_desc_get_size(p->layouts[p->own]), 64) * 64;
    p->packed = aligned_alloc(64, p->size * parts);
    return !p->packed ||
           onednn.reorder_primitive_desc_create(&desc, from, onednn_engine, to, onednn_engine, onednn_own_room) ||
           onednn_compile(&p->reorder, desc);
}

/* Of gradients oneDNN asks for a forward descriptor of the same shape beside theirs. */
static int describe_forward(Handle *desc, const Shape *s, const int64_t *weight, const int64_t *strides,
                            const int64_t *dilation, const int64_t *before, const int64_t *after) {
    Handle x = 0, w = 0, y = 0;
    int64_t x_sides[4] = {s->batch, s->chans, s->height, s->width};
    int64_t y_sides[4] = {s->batch, s->out_chans, s->out_h, s->out_w};
    int failed = onednn.memory_desc_create_with_tag(&x, 4, x_sides, BF16, ANY_LAYOUT) ||
                 onednn.memory_desc_create_with_tag(&w, 4, weight, BF16, ANY_LAYOUT) ||
                 onednn.memory_desc_create_with_tag(&y, 4, y_sides, BF16, ANY_LAYOUT) ||
                 onednn.convolution_forward_primitive_desc_create(desc, onednn_engine, FORWARD_TRAINING, DIRECT, x, w,
                                                                  0, y, strides, dilation, before, after,
                                                                  onednn_own_room);
    if (x) onednn.memory_desc_destroy(x);
    if (w) onednn.memory_desc_destroy(w);
    if (y) onednn.memory_desc_destroy(y);
    return failed;
}

static int describe_convolution(Primitive *p, const int64_t *key, const Shape *s, int has_bias, int parts) {
    int kind = key[0];
    int64_t sides[4] = {s->out_chans, s->chans, s->kernel_h, s->kernel_w}, one = 1;
    int64_t strides[2] = {s->stride, s->stride}, dilation[2] = {0, 0}, before[2] = {s->pad_h, s->pad_w}, after[2];
    /* what lies beyond the last window is left out: a smaller padding at the end */
    after[0] = (s->out_h - 1) * s->stride + s->kernel_h - s->height - s->pad_h;
    after[1] = (s->out_w - 1) * s->stride + s->kernel_w - s->width - s->pad_w;
    Handle x, w, y, bias = 0, desc = 0, forward = 0;
    p->own = 1;
    x = describe_maps(p, kind == OF_INPUT ? DIFF_SRC : SRC, kind == OF_INPUT ? F32 : BF16, s->batch, s->chans,
                      s->height, s->width);
    w = onednn_describe(p, kind == OF_WEIGHT ? DIFF_WEIGHTS : WEIGHTS, 4, sides, kind == OF_WEIGHT ? F32 : BF16, 0);
    y = describe_maps(p, kind == FORWARD ? DST : DIFF_DST, kind == FORWARD ? F32 : BF16, s->batch, s->out_chans,
                      s->out_h, s->out_w);
    if (has_bias) bias = onednn_describe(p, BIAS, 1, &s->out_chans, F32, &one);
    int failed = !x || !w || !y || (has_bias && !bias) ||
                 (kind != FORWARD && describe_forward(&forward, s, sides, strides, dilation, before, after));
    if (!failed && kind == FORWARD)
        failed = onednn.convolution_forward_primitive_desc_create(&desc, onednn_engine, FORWARD_TRAINING, DIRECT, x, w,
                                                                  bias, y, strides, dilation, before, after,
                                                                  onednn_own_room);
    else if (!failed && kind == OF_INPUT)
        failed = onednn.convolution_backward_data_primitive_desc_create(&desc, onednn_engine, DIRECT, x, w, y, strides,
                                                                        dilation, before, after, forward,
                                                                        onednn_own_room);
    else if (!failed)
        failed = onednn.convolution_backward_weights_primitive_desc_create(&desc, onednn_engine, DIRECT, x, w, 0, y,
                                                                           strides, dilation, before, after, forward,
                                                                           onednn_own_room);
    failed = failed || onednn_compile(&p->main, desc) || describe_weights(p, kind, sides, parts);
    if (forward) onednn.primitive_desc_destroy(forward);
    return onednn_keep(p, key, failed);
}

/* The gradient of the weights by one thread for every part of the batch: oneDNN's threads would wait for each other in
 * a loop, for ever where other processes have the cores. */
static int sum_of_parts(const Primitive *p, const Shape *s, int parts, const uint16_t *x, const uint16_t *dy,
                        char *room) {
    int64_t in = s->batch * s->chans * s->height * s->width, out = s->batch * s->out_chans * s->out_h * s->out_w;
    int failed = DONE;
#pragma omp parallel for num_threads(parts) schedule(static, 1)
    for (int t = 0; t < parts; t++) {
        void *data[OPERANDS] = {(void *)(x + t * in), (char *)p->packed + t * p->size, (void *)(dy + t * out)};
        char *own = room + t * ceil_div(p->main.bytes, 64) * 64;
        int code = onednn_execute(&p->main, p->count, p->args, p->layouts, data, own);
        if (code != DONE) {
#pragma omp atomic write
            failed = code;
        }
    }
    float *sum = p->packed;
    for (int t = 1; t < parts; t++) {
        const float *part = (const float *)((char *)p->packed + t * p->size);
        for (size_t i = 0; i < p->size / sizeof(float); i++) sum[i] += part[i];
    }
    return failed;
}

/* Execute the primitive of a kind; the weights go through its own layout. */
static int run(int kind, const void *maps, const void *weight, const void *bias, const void *out,
               const int64_t *sizes) {
    Shape s;
    if (!onednn_stream) return NO_PRODUCTS;
    if (!fill_shape(&s, sizes)) return BAD_SIZES;
    int threads = omp_get_max_threads(), parts = kind == OF_WEIGHT ? min_of(threads, s.batch) : 1;
    while (s.batch % parts) parts--;
    s.batch /= parts;
    int64_t key[KEY] = {kind};
    memcpy(key + 1, sizes, 10 * sizeof(int64_t));
    key[11] = bias != 0;
    key[12] = parts;
    Primitive *p = onednn_begin(key);
    if (parts > 1) omp_set_num_threads(1); /* for how many threads a primitive is made */
    int code = p->key[0] ? DONE : describe_convolution(p, key, &s, bias != 0, parts);
    if (parts > 1) omp_set_num_threads(threads);
    if (code != DONE) return onednn_end(code);
    size_t bytes = max_of(ceil_div(p->main.bytes, 64) * 64 * parts, p->reorder.bytes);
    char *room = onednn_room(bytes);
    if (bytes && !room) return onednn_end(NO_MEMORY);
    int args[2] = {SRC, DST};
    Handle packing[2] = {p->plain, p->layouts[p->own]}, unpacking[2] = {p->layouts[p->own], p->plain};
    void *pack[2] = {(void *)weight, p->packed}, *unpack[2] = {p->packed, (void *)weight};
    void *data[OPERANDS] = {(void *)maps, p->packed, (void *)out, (void *)bias};
    if (kind != OF_WEIGHT) code = onednn_execute(&p->reorder, 2, args, packing, pack, room);
    if (code == DONE && kind == OF_WEIGHT) code = sum_of_parts(p, &s, parts, maps, out, room);
    else if (code == DONE) code = onednn_execute(&p->main, p->count, p->args, p->layouts, data, room);
    if (code == DONE && kind == OF_WEIGHT) code = onednn_execute(&p->reorder, 2, args, unpacking, unpack, room);
    return onednn_end(code);
}

/* y [batch, out_h, out_w, out_chans] = conv(x [batch, height, width, chans], weight [out_chans, chans, kernel_h,
 * kernel_w]) + bias (or null). sizes: batch, chans, height, width, out_chans, kernel_h, kernel_w, stride, pad_h, pad_w. */
int bf16_convolution(const uint16_t *x, const float *weight, const float *bias, float *y, const int64_t *sizes) {
    return run(FORWARD, x, weight, bias, y, sizes);
}

/* dx from dy. */
int bf16_convolution_input_gradient(const uint16_t *dy, const float *weight, float *dx, const int64_t *sizes) {
    return run(OF_INPUT, dx, weight, 0, dy, sizes);
}

/* dweight from x and dy. */
int bf16_convolution_weight_gradient(const uint16_t *x, const uint16_t *dy, float *dweight, const int64_t *sizes) {
    return run(OF_WEIGHT, x, dweight, 0, dy, sizes);
}
