"""Read, split and augment images, and convert them to L*a*b*."""

from helpers.data.augment import (
    augment_copies,
    augment_image,
    crop_and_resize,
    flip,
    scale_rgb,
)
from helpers.data.course import Datasets, course_data
from helpers.data.faces import (
    as_float,
    embedded_portraits,
    find_images,
    load_faces,
    split_faces,
)
from helpers.data.images import (
    decode_image,
    open_source,
    read_image,
    to_square,
    write_image,
)
from helpers.data.lab import (
    AbScale,
    bgr_to_lab,
    is_gray,
    lab_to_bgr,
    to_bgr_images,
    to_lab_images,
)
from helpers.data.pairs import split_pairs, study_data, to_bytes, to_wrapped_bytes
from helpers.data.portraits import render_portrait
