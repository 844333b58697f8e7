/* The live network of the front page: it learns on with a row at the pointer, and draws itself.
 *
 * network.c is the file of bx.export_c(..., gradient=True), data.c has the rows that trained it.
 */

#include "data.c"
#include "network.c"

enum { WIDTH = 160, HEIGHT = 96, SIZE = NETWORK_N_PARAMETERS };

static float theta[SIZE], gradient[SIZE], sum[SIZE], mean[SIZE], square[SIZE];
static float pixels[WIDTH * HEIGHT];

void live_start(void)
{
    network_start(theta);
    for (int i = 0; i < SIZE; ++i) mean[i] = square[i] = 0;
}

static void add(const float *x, const float *y, float weight)
{
    network_gradient(theta, x, y, gradient);
    for (int i = 0; i < SIZE; ++i) sum[i] += weight * gradient[i];
}

/* One step of Adam on all rows. The row at the pointer counts as so many of them, without it 0. */
void live_learn(float x, float y, float target, float count)
{
    const float pointer[2] = {x, y}, weight = 1.0f / ((float)DATA_ROWS + count);
    for (int i = 0; i < SIZE; ++i) sum[i] = 0;
    for (int i = 0; i < DATA_ROWS; ++i) add(data_x + 2 * i, data_y + i, weight);
    add(pointer, &target, count * weight);
    for (int i = 0; i < SIZE; ++i) {
        mean[i] += 0.1f * (sum[i] - mean[i]);
        square[i] += 0.01f * (sum[i] * sum[i] - square[i]);
        theta[i] -= 0.02f * mean[i] / (sqrtf(square[i]) + 1e-6f);
    }
}

/* The probability of class 1, row by row from the top, WIDTH times HEIGHT of them. */
const float *live_draw(float left, float right, float bottom, float top)
{
    for (int i = 0; i < HEIGHT; ++i)
        for (int j = 0; j < WIDTH; ++j) {
            const float u = ((float)j + 0.5f) / (float)WIDTH, v = ((float)i + 0.5f) / (float)HEIGHT;
            const float x[2] = {left + u * (right - left), top + v * (bottom - top)};
            network_predict(theta, x, pixels + WIDTH * i + j);
        }
    return pixels;
}
