/* Compiled kernels of the spline: one pass over memory, where PyTorch takes dozens of operations.

   The module is optional: without a C compiler the package installs without it. Arrays are passed as
   buffers (NumPy arrays, for example), whose dtype, shape, contiguity and writability are checked
   here. skflows/kernels/__init__.py decides when the kernels run. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MAX_BINS 32
#define BLOCK 64  /* values that are processed together: a compiler vectorises loops over them */
#define VERSION 7 /* of the interface: Python refuses a build of another version */

#if defined(__FAST_MATH__) || (defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 2)
#error "The kernels need IEEE arithmetic: compile without -ffast-math, and with SSE2 on x86."
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#define restrict __restrict
#endif

/* Compile each kernel for three levels of x86-64; the loader picks the best that the CPU supports.
   Not under a sanitizer, which starts later than the loader picks. */
#if defined(__SANITIZE_ADDRESS__)
#define CLONES
#elif defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && __GNUC__ >= 12
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

/* Inlined into the clones, so that they use the instructions of their level. */
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

/* Iterate over n values in blocks: `start` is the first value of a block and `width` their number.
   Each step of a block is a loop over its values, in which no value depends on another. */
#define BLOCKS(n)                                                                             \
    for (ptrdiff_t start = 0, width; width = (n) - start < BLOCK ? (n) - start : BLOCK,       \
                                     start < (n); start += BLOCK)
#define EACH for (int j = 0; j < (int)width; j++)
#define CLAMP(from, low, high) ((from) < (low) ? (low) : (from) > (high) ? (high) : (from))

/* Of the arrays: values (..., n_features, n), parameters (..., n_features, n_params, n) and
   log-determinants (..., n). Parameters whose first of at least three axes of values has a length of 1
   are repeated along it. */
typedef struct {
    ptrdiff_t n_all_features, n_features, n_params, n, n_repeats;
} Size;

typedef void Kernel(const double *settings, const Size *size, void *const *arrays);

#define NAME(name) name##_float
#define REAL float
#define BITS uint32_t
#define MANTISSA 23 /* bits */
#define BITS_OF_ONE 0x3f800000
#define BITS_OF_ROOT 0x3f3504f3 /* of sqrt(1/2) */
#define SHIFT 12582912.0f       /* 1.5 * 2^23 */
#define SQUARE_ROOT sqrtf
#define TINY FLT_MIN
#define LEAST_EXPONENT -87
#define LOG_2_HIGH 0.693359375f /* its product with any exponent is exact */
#define LOG_2_LOW -2.12194440e-4f
#define EXP_TERMS 7
#define ATANH_TERMS 7
#include "one_dtype.h"

#define NAME(name) name##_double
#define REAL double
#define BITS uint64_t
#define MANTISSA 52
#define BITS_OF_ONE 0x3ff0000000000000
#define BITS_OF_ROOT 0x3fe6a09e667f3bcd
#define SHIFT 6755399441055744.0
#define SQUARE_ROOT sqrt
#define TINY DBL_MIN
#define LEAST_EXPONENT -708
#define LOG_2_HIGH 6.93147180369123816490e-1
#define LOG_2_LOW 1.90821492927058770002e-10
#define EXP_TERMS 12
#define ATANH_TERMS 16
#include "one_dtype.h"

#define MAX_ARRAYS 6
#define N_SETTINGS 4

/* The arrays of a call, to be released in the end. */
typedef struct {
    Py_buffer buffers[MAX_ARRAYS];
    void *data[MAX_ARRAYS];
    int n_open;
} Arrays;

static void release(Arrays *arrays)
{
    while (arrays->n_open)
        PyBuffer_Release(&arrays->buffers[--arrays->n_open]);
}

/* Open the next array of a call: C-contiguous, of the given format, 'f' or 'd', if there is one. */
static Py_buffer *open_array(Arrays *arrays, PyObject *object, char format, int writable)
{
    Py_buffer *buffer = &arrays->buffers[arrays->n_open];
    int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object, buffer, flags))
        return NULL;
    arrays->data[arrays->n_open++] = buffer->buf;
    const char *own = buffer->format ? buffer->format : "B";
    int is_real = own[0] == 'f' || own[0] == 'd';
    if (!own[0] || own[1] || (format ? own[0] != format : !is_real)) {
        PyErr_Format(PyExc_ValueError, "Array %d has the format '%s'; expected %s.", arrays->n_open - 1,
                     own, format == 'f' ? "'f'" : format == 'd' ? "'d'" : "'f' or 'd'");
        return NULL;
    }
    return buffer;
}

static int same_shape(const Py_buffer *a, const Py_buffer *b)
{
    return a->ndim == b->ndim && !memcmp(a->shape, b->shape, a->ndim * sizeof *a->shape);
}

/* Whether the dimensions of two arrays agree, from the first to before n_axes. */
static int same_leading(const Py_buffer *a, const Py_buffer *b, int first, int n_axes)
{
    return !memcmp(a->shape + first, b->shape + first, (n_axes - first) * sizeof *a->shape);
}

/* Open the arrays of a kernel. `roles` has a letter for each: v for values, p for
   parameters, l for log-determinants, in upper case for outputs. The first two are values and
   parameters. */
static int open_arrays(Arrays *arrays, PyObject *const *objects, const char *roles, Size *size)
{
    Py_buffer *values = NULL, *params = NULL;
    for (int i = 0; roles[i]; i++) {
        char format = values ? values->format[0] : 0, role = (char)tolower(roles[i]);
        Py_buffer *array = open_array(arrays, objects[i], format, role != roles[i]);
        if (!array)
            return -1;
        int is_ok;
        if (i == 0) {
            values = array;
            is_ok = values->ndim >= 2 && values->shape[values->ndim - 2] > 0;
        } else if (i == 1) {
            params = array;
            const int last = values->ndim - 1;
            is_ok = params->ndim == last + 2 && params->shape[last + 1] == values->shape[last];
            const int is_repeated =
                is_ok && last > 1 && params->shape[0] == 1 && values->shape[0] > 0;
            is_ok = is_ok && same_leading(params, values, is_repeated, last);
            size->n_repeats = is_repeated ? values->shape[0] : 1;
        } else if (role == 'v') {
            is_ok = same_shape(array, values);
        } else if (role == 'p') {
            is_ok = same_shape(array, params) && size->n_repeats == 1;
        } else {
            const int last = values->ndim - 1;
            is_ok = array->ndim == last && same_leading(array, values, 0, last - 1) &&
                    array->shape[last - 1] == values->shape[last];
        }
        if (!is_ok) {
            PyErr_Format(PyExc_ValueError, "Array %d has a shape that does not fit.", i);
            return -1;
        }
    }
    const int last = values->ndim - 1;
    size->n_features = values->shape[last - 1];
    size->n = values->shape[last];
    size->n_params = params->shape[last];
    size->n_all_features = 1;
    for (int axis = 0; axis < last; axis++)
        size->n_all_features *= values->shape[axis];
    return 0;
}

/* Call a kernel with its arrays, then its settings. */
static PyObject *call(PyObject *const *args, Py_ssize_t n_args, const char *roles, Kernel *of_float,
                      Kernel *of_double)
{
    const int n_arrays = (int)strlen(roles);
    Arrays arrays = {.n_open = 0};
    Size size;
    double settings[N_SETTINGS];
    PyObject *result = NULL;
    if (n_args != n_arrays + N_SETTINGS) {
        PyErr_Format(PyExc_TypeError, "Expected %d arguments, got %zd.", n_arrays + N_SETTINGS, n_args);
        goto end;
    }
    if (open_arrays(&arrays, args, roles, &size))
        goto end;
    for (int i = 0; i < N_SETTINGS; i++)
        settings[i] = PyFloat_AsDouble(args[n_arrays + i]);
    if (PyErr_Occurred())
        goto end;
    if (size.n_params % 3 != 2 || size.n_params > 3 * MAX_BINS - 1) {
        PyErr_Format(PyExc_ValueError, "There is no spline with %zd parameters.", size.n_params);
        goto end;
    }
    Kernel *kernel = arrays.buffers[0].format[0] == 'd' ? of_double : of_float;
    Py_BEGIN_ALLOW_THREADS;
    kernel(settings, &size, arrays.data);
    Py_END_ALLOW_THREADS;
    result = Py_NewRef(Py_None);
end:
    release(&arrays);
    return result;
}

#define KERNEL(name, roles)                                                         \
    static PyObject *name(PyObject *self, PyObject *const *args, Py_ssize_t n_args) \
    {                                                                               \
        return call(args, n_args, roles, name##_float, name##_double);              \
    }
KERNEL(spline_forward, "vpVL")
KERNEL(spline_inverse, "vpVL")
KERNEL(spline_backward, "vpvlVP")

#define METHOD(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}
static PyMethodDef methods[] = {
    METHOD(spline_forward), METHOD(spline_inverse), METHOD(spline_backward),
    {NULL, NULL, 0, NULL}};

static int add_constants(PyObject *module)
{
    return PyModule_AddIntMacro(module, MAX_BINS) || PyModule_AddIntMacro(module, VERSION);
}

/* The module has no state: it needs no lock in any interpreter or thread. */
static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, add_constants},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_compiled", .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModuleDef_Init(&module); }
