/* See host.h. Everything that depends on the model is a size there or a table here. */

#include "host.h"

#include <string.h>

#ifdef HOST_COUNT
unsigned long long host_macs;
#define COUNT(n) (host_macs += (n))
#else
#define COUNT(n) ((void)0)
#endif

@tables@

/* The 8-bit feature of a magnitude's square: how many thresholds it reaches. */
static int8_t feature(HOST_REAL power)
{
    int low = 0;
    for (int step = 64; step; step /= 2)
        if (power >= thresholds[low + step - 1])
            low += step;
    return (int8_t)low;
}

#if HOST_STFT

/* Fast Fourier transform of HOST_KERNEL complex numbers in place; its length is a power of two. */
static void fourier(HOST_REAL *re, HOST_REAL *im)
{
    for (unsigned i = 1, j = 0; i < HOST_KERNEL; i++) { /* bit-reversed order */
        unsigned bit = HOST_KERNEL / 2;
        for (; j & bit; bit /= 2)
            j ^= bit;
        j ^= bit;
        if (i < j) {
            HOST_REAL swap = re[i];
            re[i] = re[j];
            re[j] = swap;
            swap = im[i];
            im[i] = im[j];
            im[j] = swap;
        }
    }
    for (unsigned half = 1; half < HOST_KERNEL; half *= 2) {
        unsigned stride = HOST_KERNEL / 2 / half;
        for (unsigned start = 0; start < HOST_KERNEL; start += 2 * half) {
            for (unsigned k = 0; k < half; k++) {
                unsigned a = start + k, b = a + half;
                HOST_REAL c = cosines[k * stride], s = sines[k * stride];
                HOST_REAL x = c * re[b] + s * im[b], y = c * im[b] - s * re[b];
                re[b] = re[a] - x;
                im[b] = im[a] - y;
                re[a] += x;
                im[a] += y;
            }
        }
        COUNT(4 * HOST_KERNEL / 2);
    }
}

/* The frame's spectrum: real and imaginary part in turn, from frequency 0 to the highest. */
static void analyse(const HOST_REAL *heard, HOST_REAL *frame, int8_t *features)
{
    HOST_REAL re[HOST_KERNEL], im[HOST_KERNEL] = {0};
    for (unsigned n = 0; n < HOST_KERNEL; n++)
        re[n] = heard[n] * analysis[n];
    COUNT(HOST_KERNEL);
    fourier(re, im);
    for (unsigned k = 0; k <= HOST_KERNEL / 2; k++) {
        frame[2 * k] = re[k];
        frame[2 * k + 1] = im[k];
    }
    features[0] = HOST_CONSTANT;
    for (unsigned k = 1; k < HOST_KERNEL / 2; k++)
        features[k] = feature(re[k] * re[k] + im[k] * im[k]);
    COUNT(2 * (HOST_KERNEL / 2 - 1));
}

/* Samples of the frame under the mask of its only decoder. */
static void synthesise(const HOST_REAL *frame, const HOST_REAL *mask, HOST_REAL *samples)
{
    HOST_REAL re[HOST_KERNEL], im[HOST_KERNEL];
    for (unsigned k = 0; k <= HOST_KERNEL / 2; k++) {
        HOST_REAL m = mask[k < HOST_MASKS ? k : HOST_MASKS - 1];
        re[k] = m * frame[2 * k];
        im[k] = -m * frame[2 * k + 1]; /* conjugate: the inverse is a forward transform */
    }
    COUNT(2 * (HOST_KERNEL / 2 + 1));
    for (unsigned k = 1; k < HOST_KERNEL / 2; k++) {
        re[HOST_KERNEL - k] = re[k];
        im[HOST_KERNEL - k] = -im[k];
    }
    im[0] = im[HOST_KERNEL / 2] = 0;
    fourier(re, im);
    for (unsigned n = 0; n < HOST_KERNEL; n++)
        samples[n] = re[n] * synthesis[n];
    COUNT(HOST_KERNEL);
}

#else

/* The frame: how much of every filter is in the samples, if positive. */
static void analyse(const HOST_REAL *heard, HOST_REAL *frame, int8_t *features)
{
    for (unsigned f = 0; f < HOST_FEATURES; f++) {
        HOST_REAL sum = 0;
        for (unsigned n = 0; n < HOST_KERNEL; n++)
            sum += encoder[f][n] * heard[n];
        frame[f] = sum > 0 ? sum : 0;
        features[f] = feature(frame[f] * frame[f]);
    }
    COUNT(HOST_FEATURES * (HOST_KERNEL + 1));
}

/* Samples of the frame under one source's mask. */
static void synthesise(const HOST_REAL *frame, const HOST_REAL *mask, HOST_REAL *samples)
{
    for (unsigned n = 0; n < HOST_KERNEL; n++)
        samples[n] = 0;
    for (unsigned f = 0; f < HOST_FEATURES; f++) {
        HOST_REAL masked = mask[f] * frame[f];
        for (unsigned n = 0; n < HOST_KERNEL; n++)
            samples[n] += masked * decoder[f][n];
    }
    COUNT(HOST_FEATURES * (HOST_KERNEL + 1));
}

#endif

void host_listen(host_state *state, const HOST_REAL *in)
{
    for (unsigned t = 0; t < HOST_FRAMES; t++) {
        memmove(state->heard, state->heard + HOST_HOP, sizeof *in * (HOST_KERNEL - HOST_HOP));
#if HOST_REST
        memcpy(state->late + t * HOST_HOP, state->heard, sizeof *in * HOST_HOP);
#endif
        memcpy(state->heard + HOST_KERNEL - HOST_HOP, in + t * HOST_HOP, sizeof *in * HOST_HOP);
        analyse(state->heard, state->frames[t], state->ring[state->oldest]);
        state->oldest = (state->oldest + 1) % HOST_RING;
    }
}

uint32_t host_word(const host_state *state, unsigned i, unsigned j)
{
    unsigned t = j / HOST_PASSES, pass = j % HOST_PASSES;
    uint32_t word = 0;
    if (t >= HOST_RING) /* frames at the end that the network crops */
        return 0;
    const int8_t *frame = state->ring[(state->oldest + t) % HOST_RING];
    for (unsigned b = 0; b < 4; b++) {
        unsigned processor = 4 * i + b, channel = pass * HOST_PROCESSORS + processor;
        if (processor < HOST_PROCESSORS && channel < HOST_FEATURES)
            word |= (uint32_t)(uint8_t)frame[channel] << 8 * b;
    }
    return word;
}

void host_speak(host_state *state, const int8_t *logits, HOST_REAL *out)
{
    HOST_REAL mask[HOST_MASKS], samples[HOST_KERNEL];
    for (unsigned t = 0; t < HOST_FRAMES; t++) {
        for (unsigned s = 0; s < HOST_DECODERS; s++) {
            HOST_REAL *tail = state->tails[s], *to = out + s * HOST_SAMPLES + t * HOST_HOP;
            for (unsigned m = 0; m < HOST_MASKS; m++)
                mask[m] = sigmoid[logits[(s * HOST_MASKS + m) * HOST_FRAMES + t] + 128];
            synthesise(state->frames[t], mask, samples);
            for (unsigned n = 0; n < HOST_HOP; n++)
                to[n] = tail[n] + samples[n];
            memcpy(tail, samples + HOST_HOP, sizeof *samples * (HOST_KERNEL - HOST_HOP));
        }
    }
#if HOST_REST
    for (unsigned n = 0; n < HOST_SAMPLES; n++) /* the last source is what the first one lacks */
        out[HOST_SAMPLES + n] = state->late[n] - out[n];
#endif
}

void host_run(host_state *state, const HOST_REAL *in, HOST_REAL *out, host_network network,
              void *user)
{
    int8_t logits[HOST_LOGITS * HOST_FRAMES];
    host_listen(state, in);
    network(user, state, logits);
    host_speak(state, logits, out);
}
