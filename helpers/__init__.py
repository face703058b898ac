"""Helpers of the deep-colorization course: faces, augment, lab, nets, training, figures.

OpenCV reads its limit on image size once, when it is first imported, so the limit is
set here, before any helper imports it.
"""

import os

MAX_PIXELS = 2**27  # 134 megapixels: a scan of a large print, not a decompression bomb
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
