/* What the microcontroller does around the accelerator of a MAX78000, for one model.

   C99, no heap, no library. Samples are HOST_REAL, in [-1, 1], one channel of HOST_SAMPLE_RATE Hz.

       static host_state state;                        // zeros: silence was before
       for (;;) {
           receive(in, HOST_SAMPLES);
           host_run(&state, in, out, network, NULL);   // out[source][sample], HOST_DELAY late
           send(out);
       }

   `network` runs one inference. It loads host_word(state, i, j) into word j behind the byte
   HOST_IN_OFFSET of the accelerator's data memory i, for all i < HOST_INSTANCES, j < HOST_WORDS;
   starts the accelerator and waits; and leaves the output in logits[channel][frame]. */

#ifndef HOST_H
#define HOST_H

#include <stdint.h>

#ifndef HOST_REAL
#define HOST_REAL float
#endif

@sizes@

typedef struct {
    HOST_REAL heard[HOST_KERNEL];                       /* the last samples */
    HOST_REAL frames[HOST_FRAMES][HOST_PARTS];          /* what masks are applied to */
    HOST_REAL tails[HOST_DECODERS][HOST_KERNEL - HOST_HOP]; /* samples not yet complete */
#if HOST_REST
    HOST_REAL late[HOST_SAMPLES];                       /* the mixture, as late as the output */
#endif
    int8_t ring[HOST_RING][HOST_FEATURES];              /* features of past frames */
    unsigned oldest;                                    /* the frame of the ring that came first */
} host_state;

/* Runs the accelerator: fills logits[HOST_LOGITS][HOST_FRAMES] from the state's window. */
typedef void (*host_network)(void *user, const host_state *state, int8_t *logits);

/* Take HOST_SAMPLES samples, let `network` run, and give HOST_SAMPLES of every source. */
void host_run(host_state *state, const HOST_REAL *in, HOST_REAL *out, host_network network,
              void *user);

/* The parts of host_run before and after the network. */
void host_listen(host_state *state, const HOST_REAL *in);
void host_speak(host_state *state, const int8_t *logits, HOST_REAL *out);

/* Word j of the window for data memory i: the features of four channels of one frame. */
uint32_t host_word(const host_state *state, unsigned i, unsigned j);

#ifdef HOST_COUNT
extern unsigned long long host_macs; /* multiply-accumulates since the start */
#endif

#endif
