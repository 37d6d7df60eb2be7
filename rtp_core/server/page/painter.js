// Painting no more often than the screen shows it.

/** At most one paint a frame, however fast tokens come. */
export class Painter {
  constructor(paint) {
    this.paint = paint;
    this.frame = 0;
  }

  request() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.now());
  }

  now() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.paint();
  }
}
