/* What takes torch many operations, each in one pass over memory.

   The module is optional: where no C compiler is at hand the package is installed without it, and
   takes torch's operations. _fused.py tells which of them serves. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MAX_BINS 32
#define TILE 64 /* values: what a spline of 8 bins needs of these stays in the cache of level 1 */
#define VERSION 4 /* of what Python passes: a build of another one would misread it */

#if defined(__FAST_MATH__) || (defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 2)
#error "Rounding to whole numbers, and nan, need arithmetic as it is written."
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#define restrict __restrict
#endif

/* Made for three generations of processors. The one at hand takes the best, when loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && __GNUC__ >= 12
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

/* Into the clones, or it would have the instructions of the oldest. */
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

/* Values are taken in tiles: a step is a loop over one, of which a compiler makes vectors, and what
   it leaves stays in the nearest cache. No step looks at two values, and the tests see to it that
   compilers give each the same bits in any tile. */
#define TILES(n) for (ptrdiff_t start = 0, width; width = (n) - start < TILE ? (n) - start : TILE, \
                                                  start < (n); start += TILE)
#define EACH for (int j = 0; j < (int)width; j++)
#define CHOOSE(from, low, high) ((from) < (low) ? (low) : (from) > (high) ? (high) : (from))

#define MOST_SETTINGS 8
#define MOST_SIZES 13
#define MOST_TENSORS 12
typedef void Pass(const double *settings, const ptrdiff_t *sizes, void *const *tensors);

#define NAME(name) name##_float
#define REAL float
#define BITS uint32_t
#define SIGNED int32_t
#define MANTISSA 23            /* bits */
#define BITS_OF_ONE 0x3f800000
#define BITS_OF_ROOT 0x3f3504f3 /* of 1/2 */
#define SHIFT 12582912.0f      /* 1.5 times two to the number of those bits */
#define MAGIC 0x5f375a86
#define NEWTON_STEPS 3
#define SQUARE_ROOT sqrtf
#define TINY FLT_MIN
#define LARGEST FLT_MAX
#define LEAST_EXPONENT -87
#define LOG_2_HIGH 0.693359375f /* times any power it is exact */
#define LOG_2_LOW -2.12194440e-4f
#define EXP_TERMS 7
#define ATANH_TERMS 7
#include "of_one_type.h"

#define NAME(name) name##_double
#define REAL double
#define BITS uint64_t
#define SIGNED int64_t
#define MANTISSA 52
#define BITS_OF_ONE 0x3ff0000000000000
#define BITS_OF_ROOT 0x3fe6a09e667f3bcd
#define SHIFT 6755399441055744.0
#define MAGIC 0x5fe6eb50c7b537a9
#define NEWTON_STEPS 4
#define SQUARE_ROOT sqrt
#define TINY DBL_MIN
#define LARGEST DBL_MAX
#define LEAST_EXPONENT -708
#define LOG_2_HIGH 6.93147180369123816490e-1
#define LOG_2_LOW 1.90821492927058770002e-10
#define EXP_TERMS 12
#define ATANH_TERMS 16
#include "of_one_type.h"

static int numbers_of(PyObject *tuple, Py_ssize_t count, double *settings, ptrdiff_t *sizes)
{
    if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != count) {
        PyErr_Format(PyExc_ValueError, "Expected a tuple of %zd numbers, got %R.", count, tuple);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *number = PyTuple_GET_ITEM(tuple, i);
        if (settings)
            settings[i] = PyFloat_AsDouble(number);
        else
            sizes[i] = PyLong_AsSsize_t(number);
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* Calls a pass with (is_double, settings, sizes, *addresses of tensors). */
static PyObject *call(PyObject *const *args, Py_ssize_t n_args, Py_ssize_t n_settings,
                      Py_ssize_t n_sizes, Py_ssize_t n_tensors, Pass *of_floats, Pass *of_doubles)
{
    double settings[MOST_SETTINGS];
    ptrdiff_t sizes[MOST_SIZES];
    void *tensors[MOST_TENSORS];
    if (n_args != 3 + n_tensors)
        return PyErr_Format(PyExc_ValueError, "Expected %zd tensors.", n_tensors);
    if (numbers_of(args[1], n_settings, settings, NULL) || numbers_of(args[2], n_sizes, NULL, sizes))
        return NULL;
    for (int i = 0; i < n_tensors; i++)
        tensors[i] = PyLong_AsVoidPtr(args[3 + i]);
    if (PyErr_Occurred())
        return NULL;
    Pass *pass = args[0] == Py_True ? of_doubles : of_floats;
    Py_BEGIN_ALLOW_THREADS;
    pass(settings, sizes, tensors);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

/* Of each, its numbers of settings, sizes and tensors. */
#define PASSES(OF)               \
    OF(spline, 6, 3, 4)          \
    OF(spline_inverse, 6, 3, 4)  \
    OF(spline_backward, 6, 3, 6) \
    OF(affine, 1, 3, 4)          \
    OF(affine_inverse, 1, 3, 4)  \
    OF(affine_backward, 1, 3, 6) \
    OF(squash, 1, 1, 2)          \
    OF(squash_backward, 1, 1, 3) \
    OF(lu, 1, 6, 6)              \
    OF(lu_backward, 1, 6, 9)     \
    OF(layer, 0, 13, 10)         \
    OF(layer_backward, 0, 12, 11)\
    OF(likelihood, 1, 3, 7)      \
    OF(adam, 7, 3, 12)

#define FUNCTION(name, n_settings, n_sizes, n_tensors)                                            \
    static PyObject *name(PyObject *self, PyObject *const *args, Py_ssize_t n_args)               \
    {                                                                                             \
        (void)sizeof(char[(n_settings) <= MOST_SETTINGS && (n_sizes) <= MOST_SIZES &&             \
                          (n_tensors) <= MOST_TENSORS ? 1 : -1]);                                 \
        return call(args, n_args, n_settings, n_sizes, n_tensors, name##_float, name##_double);   \
    }
PASSES(FUNCTION)

/* The address within a capsule of scipy.linalg.cython_blas, if its whole numbers are int. */
static PyObject *gemm_of(PyObject *self, PyObject *capsule)
{
    static const char numbers[] = "void (char *, char *, int *, int *, int *, ";
    const char *name = PyCapsule_GetName(capsule);
    if (!name || strncmp(name, numbers, sizeof numbers - 1))
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "Not the gemm: %R.", capsule);
    void *pointer = PyCapsule_GetPointer(capsule, name);
    return pointer ? PyLong_FromVoidPtr(pointer) : NULL;
}

#define METHOD(name, ...) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL},
static PyMethodDef methods[] = {PASSES(METHOD) {"gemm_of", gemm_of, METH_O, NULL},
                                {NULL, NULL, 0, NULL}};

static int fill(PyObject *module)
{
    return PyModule_AddIntMacro(module, MAX_BINS) || PyModule_AddIntMacro(module, TILE) ||
           PyModule_AddIntMacro(module, VERSION);
}

/* It has no state: no interpreter and no thread needs a lock for it. */
static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_passes", .m_methods = methods, .m_slots = slots};

PyMODINIT_FUNC PyInit__passes(void) { return PyModuleDef_Init(&module); }
