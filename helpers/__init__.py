"""Helpers of the deep-colorization course.

Each of the packages data, nets, evaluation, training, experiments and apps imports only
from those before it.

OpenCV reads its limit on the image size once, when it is first imported. The limit is
therefore set here, before any helper imports OpenCV.
"""

import os

MAX_PIXELS = (
    2**27
)  # 134 megapixels: allows scans of large prints, not decompression bombs
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
