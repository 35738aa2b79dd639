/* Fails unless every plugin of the facade is in the program. */
#include <stdint.h>

int32_t headwater_linkage_faults(void);

int main(void) { return headwater_linkage_faults() == 0 ? 0 : 1; }
