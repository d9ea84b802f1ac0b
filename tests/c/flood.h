/* flood.h - what flood.c writes, for those who check that it has arrived. */
#ifndef PR_FLOOD_H
#define PR_FLOOD_H

/* The byte at `at` of a stream: other neighbours at every place, and another text on each stream.
 * */
static inline unsigned char flood_byte(int stream, unsigned at)
{
    return (unsigned char)(at * 7 + at / 251 + (unsigned)stream * 101);
}

enum { FLOOD_CANNOT = 3 }; /* the exit code when a pipe does not grow */

#endif
