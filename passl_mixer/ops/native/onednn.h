/* What the files on oneDNN share: its types and numbers, its functions, the primitives that are kept.
 *
 * Of oneDNN, which Paddle brings, only the C interface is used, which version 3 keeps. The addresses of its functions
 * come from the process (onednn_open), and what is needed of its header is declared here.
 */
#include <pthread.h>

#include "common.h"

typedef struct dnnl_any *Handle; /* an engine, a stream, a memory, a descriptor or a primitive of oneDNN */
typedef struct {
    int arg;
    Handle memory;
} Argument;

enum { BF16 = 2, F32 = 3, ANY_LAYOUT = 1, CPU = 1, DEFAULT_FLAGS = 1, DIRECT = 1, FORWARD_TRAINING = 64 };
enum { SRC = 1, DST = 17, WEIGHTS = 33, BIAS = 41, SCRATCHPAD = 80, POST_OP = 32770 };
enum { DIFF_SRC = 129, DIFF_DST = 145, DIFF_WEIGHTS = 161 };
enum { GELU_ERF = 49, GELU_TANH = 43, BINARY_ADD = 0x1fff0, USER_SCRATCHPAD = 1 };
enum { QUERY_WEIGHTS = 131, QUERY_DIFF_WEIGHTS = 132, QUERY_SCRATCHPAD = 136 };
enum { BF16_INSTRUCTIONS = 0x80 }; /* of dnnl_cpu_isa_t: AVX512-BF16 and what came after it */

/* In the order of FUNCTIONS in onednn.py. */
typedef struct {
    int (*engine_create)(Handle *, int, size_t);
    int (*stream_create)(Handle *, Handle, unsigned);
    int (*memory_desc_create_with_strides)(Handle *, int, const int64_t *, int, const int64_t *);
    int (*memory_desc_create_with_tag)(Handle *, int, const int64_t *, int, int);
    int (*memory_desc_destroy)(Handle);
    size_t (*memory_desc_get_size)(Handle);
    int (*memory_create)(Handle *, Handle, Handle, void *);
    int (*memory_destroy)(Handle);
    int (*primitive_attr_create)(Handle *);
    int (*primitive_attr_destroy)(Handle);
    int (*primitive_attr_set_post_ops)(Handle, Handle);
    int (*primitive_attr_set_scratchpad_mode)(Handle, int);
    int (*post_ops_create)(Handle *);
    int (*post_ops_destroy)(Handle);
    int (*post_ops_append_eltwise)(Handle, int, float, float);
    int (*post_ops_append_binary)(Handle, int, Handle);
    int (*matmul_primitive_desc_create)(Handle *, Handle, Handle, Handle, Handle, Handle, Handle);
    int (*convolution_forward_primitive_desc_create)(Handle *, Handle, int, int, Handle, Handle, Handle, Handle,
                                                     const int64_t *, const int64_t *, const int64_t *,
                                                     const int64_t *, Handle);
    int (*convolution_backward_data_primitive_desc_create)(Handle *, Handle, int, Handle, Handle, Handle,
                                                           const int64_t *, const int64_t *, const int64_t *,
                                                           const int64_t *, Handle, Handle);
    int (*convolution_backward_weights_primitive_desc_create)(Handle *, Handle, int, Handle, Handle, Handle, Handle,
                                                              const int64_t *, const int64_t *, const int64_t *,
                                                              const int64_t *, Handle, Handle);
    int (*reorder_primitive_desc_create)(Handle *, Handle, Handle, Handle, Handle, Handle);
    Handle (*primitive_desc_query_md)(Handle, int, int);
    int (*primitive_desc_destroy)(Handle);
    int (*primitive_create)(Handle *, Handle);
    int (*primitive_destroy)(Handle);
    int (*primitive_execute)(Handle, Handle, int, const Argument *);
    int (*get_effective_cpu_isa)(void);
} Functions;

extern Functions onednn;
extern Handle onednn_engine, onednn_stream;
extern Handle onednn_own_room; /* attributes of primitives whose room is ours */

enum { PRODUCT = 1, FORWARD = 2, OF_INPUT = 3, OF_WEIGHT = 4 }; /* kinds of primitive, key[0] */

#define KEY 14
#define OPERANDS 5

/* A primitive and the room for what it notes while it runs: of its own, as oneDNN's would be the thread's that made it. */
typedef struct {
    Handle primitive, desc;
    const struct dnnl_any *room;
    size_t bytes;
} Program;

typedef struct {
    int64_t key[KEY]; /* key[0] is the kind; 0 where the place is free */
    Program main, reorder;
    int count, args[OPERANDS];
    Handle layouts[OPERANDS]; /* of the arguments; all but borrowed ones are destroyed with the primitive */
    Handle plain;             /* layout of the weights as the caller has them, where the primitive wants its own */
    void *packed;             /* room for them in the primitive's layout, `size` bytes for every part of a batch */
    size_t size;
    int own;                  /* which argument that is; -1: none */
} Primitive;


/* A call holds its turn from begin to end: the primitive of a key, or a place to describe one (key[0] is 0). */
Primitive *onednn_begin(const int64_t *key);
int onednn_end(int code);
Handle onednn_describe(Primitive *p, int arg, int axes, const int64_t *sides, int type, const int64_t *strides);
int onednn_compile(Program *program, Handle desc);
int onednn_keep(Primitive *p, const int64_t *key, int failed);
void *onednn_room(size_t bytes);
int onednn_execute(const Program *program, int count, const int *args, const Handle *layouts, void *const *data,
                   void *room);
