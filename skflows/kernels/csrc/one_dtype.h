/* All kernels for one dtype. It is included for float and for double, with REAL as the type, BITS as
   the unsigned integer of the same size, and NAME(f) as the name of function f for that dtype. */

#include "elementary.h"
#include "spline.h"

#undef NAME
#undef REAL
#undef BITS
#undef MANTISSA
#undef BITS_OF_ONE
#undef BITS_OF_ROOT
#undef SHIFT
#undef SQUARE_ROOT
#undef TINY
#undef LEAST_EXPONENT
#undef LOG_2_HIGH
#undef LOG_2_LOW
#undef EXP_TERMS
#undef ATANH_TERMS
