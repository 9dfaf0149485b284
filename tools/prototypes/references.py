"""The structures that come first: elements, which close every hull, and textbook compounds, which check it."""

from __future__ import annotations

import re

from tools.prototypes.candidate import REFERENCE, TEXTBOOK, Candidate
from tools.prototypes.recipes import MOLECULE

# fmt: off
ELEMENTS: tuple[str, ...] = (
    "H", "Li", "B", "C", "N", "O", "F", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "K", "Ca",
    "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br", "Rb", "Sr",
    "Y", "Zr", "Nb", "Ag", "In", "Sn", "Sb", "Te", "I", "Cs", "Ba", "La", "Pb", "Bi",
)
"""The set's elements: common ones of most groups, without noble gases and radioactive ones."""

METALS = (
    "Li", "Na", "Mg", "Al", "K", "Ca", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga",
    "Rb", "Sr", "Y", "Zr", "Nb", "Ag", "In", "Sn", "Cs", "Ba", "La", "Pb",
)
# fmt: on
"""Each is tried in the four close-packed or body-centred lattices: the force field decides."""

FCC, BCC, HCP, DHCP = "A_cF4_225_a:Cu", "A_cI2_229_a:W", "A_hP2_194_c:Mg", "A_hP4_194_ac:La"
SAMARIUM, BETA_MANGANESE, BETA_TIN = "A_hR3_166_ac:Sm", "A_cP20_213_cd:Mn", "A_tI4_141_a:Sn"
DIAMOND, GRAPHITE, ARSENIC = "A_cF8_227_a:C", "A_hP4_194_bc:C", "A_hR2_166_c:As"
BLACK_PHOSPHORUS, IODINE, SELENIUM = "A_oC8_64_f:P", "A_oC8_64_f:I", "A_hP3_152_a:Se"
OXYGEN, NITROGEN = "A_mC4_12_i:O2", "A_cP8_205_c:N2"

OTHER_PHASES: dict[str, tuple[str, ...]] = {
    "H": (f"{MOLECULE}H2", NITROGEN, OXYGEN),
    "Li": (SAMARIUM,),
    "B": ("A_hR12_166_2h:B",),
    "C": (GRAPHITE, DIAMOND),
    "N": (f"{MOLECULE}N2", NITROGEN, "A_tP4_136_f:N2"),
    "O": (f"{MOLECULE}O2", OXYGEN, "A_hR2_166_c:O2", BLACK_PHOSPHORUS),
    "F": (f"{MOLECULE}F2", NITROGEN, OXYGEN),
    "Na": (SAMARIUM,),
    "Si": (DIAMOND,),
    "P": (BLACK_PHOSPHORUS, ARSENIC),
    "S": (f"{MOLECULE}S8", SELENIUM),
    "Cl": (f"{MOLECULE}Cl2", IODINE, "A_tP16_138_j:Cl2"),
    "Mn": (BETA_MANGANESE,),
    "Ga": ("A_oC8_64_f:Ga",),
    "Ge": (DIAMOND,),
    "As": (ARSENIC,),
    "Se": (SELENIUM,),
    "Br": (f"{MOLECULE}Br2", IODINE),
    "In": ("A_tI2_139_a:In",),
    "Sn": (DIAMOND, BETA_TIN),
    "Sb": (ARSENIC,),
    "Te": (SELENIUM,),
    "I": (f"{MOLECULE}I2", IODINE),
    "Bi": (ARSENIC, BCC),
}
"""Phases of elements beside the metals' four: the ground states where the library has them. Alpha manganese (29 atoms)
and alpha sulfur (32) are too large; beta manganese and a ring of sulfur stand in."""

ROCK_SALT, CESIUM_CHLORIDE, ZINCBLENDE = "AB_cF8_225_a_b:NaCl", "AB_cP2_221_b_a:CsCl", "AB_cF8_216_c_a:ZnS"
WURTZITE, RUTILE, FLUORITE = "AB_hP4_186_b_b:ZnS", "A2B_tP6_136_f_a:TiO2", "AB2_cF12_225_a_c:CaF2"
PEROVSKITE, CORUNDUM = "AB3C_cP5_221_a_c_b:CaTiO3", "A2B3_hR10_167_c_e:Al2O3"

COMPOUNDS: tuple[tuple[str, str], ...] = (
    (ROCK_SALT, "NaCl: NaCl MgO LiF LiH LiCl NaF NaBr KF KCl KBr RbCl CaO SrO BaO FeO MnO NiO"),
    (ROCK_SALT, "NaCl: CoO MgS CaS AgCl TiN VN TiC"),
    (CESIUM_CHLORIDE, "CsCl: CsCl CsBr CsI NiAl FeAl"),
    (ZINCBLENDE, "ZnS: ZnS ZnSe ZnTe GaAs GaP AlP AlAs InP InAs InSb GaSb BN BP CuCl CuBr SiC"),
    (WURTZITE, "ZnS: ZnS ZnO AlN GaN InN SiC"),
    (RUTILE, "TiO2: TiO2 SnO2 VO2 NbO2 MnO2 CrO2 PbO2 MgF2 ZnF2 FeF2"),
    ("A2B_tI12_141_e_a:TiO2", "TiO2: TiO2"),
    (FLUORITE, "CaF2: CaF2 SrF2 BaF2 BaCl2 PbF2 ZrO2 SrCl2"),
    (FLUORITE, "FCa: Li2O Na2O K2O Na2S Mg2Si Mg2Sn Mg2Ge"),
    (PEROVSKITE, "CaTiO3: SrTiO3 CaTiO3 BaTiO3 PbTiO3 KNbO3 NaNbO3 BaZrO3 SrZrO3 LaAlO3 LaMnO3 LaFeO3 KMgF3 NaMgF3"),
    ("AB3C_oP20_62_c_cd_a:CaTiO3", "CaTiO3: CaTiO3 SrZrO3 LaMnO3 NaMgF3"),
    (CORUNDUM, "Al2O3: Al2O3 Fe2O3 Cr2O3 V2O3 Ti2O3 Ga2O3 In2O3"),
    ("A2BC4_cF56_227_d_a_e:MgAl2O4", "MgAl2O4: MgAl2O4 ZnAl2O4 MgFe2O4 ZnFe2O4 NiFe2O4 CoAl2O4"),
    ("ABC2_hR4_166_a_b_c:NaCrS2", "NaCrS2: NaCrS2 LiCoO2 LiNiO2 NaCoO2 NaFeO2 LiCrO2"),
    ("A2B_hP9_152_c_a:SiO2", "SiO2: SiO2 GeO2"),
    ("A2B_tP12_92_b_a:SiO2", "SiO2: SiO2"),
    ("AB2_hP3_164_a_d:CdI2", "CdI2: MgCl2 MgBr2 CaI2 TiS2 ZrS2 ZrSe2 MgI2 FeBr2"),
    ("AB2_hP6_194_c_f:MoS2", "MoS2: NbS2 NbSe2"),
    ("AB_hP4_194_c_d:BN", "BN: BN"),
    ("AB_hP4_194_c_a:NiAs", "NiAs: NiAs FeS CoS VS NiSb MnAs"),
    ("AB2_cP12_205_a_c:FeS2", "FeS2: FeS2 MnS2 NiS2 CoS2"),
    ("A2B_cP6_224_b_a:Cu2O", "Cu2O: Cu2O Ag2O"),
    ("AB_mC8_15_c_e:CuO", "CuO: CuO"),
    ("A2B_mP12_14_2e_e:ZrO2", "ZrO2: ZrO2"),
    ("A4BC_tI24_141_h_b_a:ZrSiO4", "ZrSiO4: ZrSiO4"),
    ("ABC3_hR10_167_a_b_e:CaCO3", "CaCO3: CaCO3 MgCO3 NaNO3"),
    ("A2B3_hR5_166_c_ac:Bi2Te3", "Bi2Te3: Bi2Te3 Bi2Se3 Sb2Te3"),
    ("A3B_hP4_191_bc_a:Li3N", "Li3N: Li3N"),
    ("ABC_cF12_216_b_c_a:MgAgAs", "MgAgAs: LiZnAs ZrSnNi TiSnNi"),
    ("ABC_tP6_129_c_a_c:PbClF", "PbClF: PbClF BaClF BiClO"),
    ("AB2_hP3_191_a_d:AlB2", "AlB2: AlB2 MgB2 TiB2 ZrB2"),
    ("AB3_cP4_221_a_c:Cu3Au", "AuCu: AlNi3 AlZr3 InLa3"),
)
"""(prototype, parents: compounds), where the compounds' elements replace the parents' in the order of the formula."""


def reference_candidates() -> list[Candidate]:
    """Phases of every element, element by element."""
    found = []
    for element in ELEMENTS:
        lattices = (FCC, BCC, HCP, DHCP) if element in METALS else ()
        for label in (*OTHER_PHASES.get(element, ()), *lattices):
            old = element if label.startswith(MOLECULE) else _symbols(label.partition(":")[2])[0]
            found.append(Candidate.make(REFERENCE, label, {old: element}))
    return found


def textbook_candidates() -> list[Candidate]:
    """The compounds of `COMPOUNDS`, in turns over the rows, so that a short build has some of each structure."""
    rows = []
    for label, text in COMPOUNDS:
        parent, _, compounds = text.partition(":")
        rows.append([textbook_candidate(label, parent, name) for name in compounds.split()])
    longest = max(len(row) for row in rows)
    return [row[turn] for turn in range(longest) for row in rows if turn < len(row)]


def textbook_candidate(label: str, parent: str, compound: str) -> Candidate:
    """The prototype with the parent's elements replaced by the compound's, in the order of the two formulas."""
    return Candidate.make(TEXTBOOK, label, dict(zip(_symbols(parent), _symbols(compound), strict=True)))


def _symbols(formula: str) -> list[str]:
    """Elements of a formula as they stand in it."""
    return re.findall("[A-Z][a-z]?", formula)
