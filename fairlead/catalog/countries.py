"""Countries: the continent each is on, and the jurisdiction that data there falls under.

Codes are ISO 3166-1 alpha-3. Continents are the catalog's: Africa (AF), Asia (AS), Europe (EU), the Middle East (ME),
North America with the Caribbean (NA), Oceania (OC), South America (SA).
"""

from __future__ import annotations

import difflib
from types import MappingProxyType

from fairlead.core.errors import InvalidInput

_ON_CONTINENT = MappingProxyType(
    {
        "AF": "AGO BDI BEN BFA BWA CAF CIV CMR COD COG COM CPV DJI DZA EGY ERI ESH ETH GAB GHA GIN GMB GNB GNQ KEN LBR "
        "LBY LSO MAR MDG MLI MOZ MRT MUS MWI MYT NAM NER NGA REU RWA SDN SEN SHN SLE SOM SSD STP SWZ SYC TCD TGO TUN "
        "TZA UGA ZAF ZMB ZWE",
        "AS": "AFG BGD BRN BTN CHN HKG IDN IND JPN KAZ KGZ KHM KOR LAO LKA MAC MDV MMR MNG MYS NPL PAK PHL PRK SGP THA "
        "TJK TKM TLS TWN UZB VNM",
        "EU": "ALA ALB AND AUT BEL BGR BIH BLR CHE CYP CZE DEU DNK ESP EST FIN FRA FRO GBR GGY GIB GRC HRV HUN IMN IRL "
        "ISL ITA JEY LIE LTU LUX LVA MCO MDA MKD MLT MNE NLD NOR POL PRT ROU RUS SJM SMR SRB SVK SVN SWE UKR VAT",
        "ME": "ARE ARM AZE BHR GEO IRN IRQ ISR JOR KWT LBN OMN PSE QAT SAU SYR TUR YEM",
        "NA": "ABW AIA ATG BES BHS BLM BLZ BMU BRB CAN CRI CUB CUW CYM DMA DOM GLP GRD GRL GTM HND HTI JAM KNA LCA MAF "
        "MEX MSR MTQ NIC PAN PRI SLV SPM SXM TCA TTO USA VCT VGB VIR",
        "OC": "ASM AUS CCK COK CXR FJI FSM GUM KIR MHL MNP NCL NFK NIU NRU NZL PCN PLW PNG PYF SLB TKL TON TUV VUT WLF "
        "WSM",
        "SA": "ARG BOL BRA CHL COL ECU FLK GUF GUY PER PRY SUR URY VEN",
    }
)
_EU = frozenset(
    code
    for codes in (
        "AUT BEL BGR CYP CZE DEU DNK ESP EST FIN FRA GRC HRV HUN",
        "IRL ITA LTU LUX LVA MLT NLD POL PRT ROU SVK SVN SWE",
    )
    for code in codes.split()
)
_EEA = frozenset({"ISL", "LIE", "NOR"})
_NAMED = MappingProxyType({"GBR": "UK", "CHE": "CH", "USA": "US"})

CONTINENTS = MappingProxyType({code: name for name, codes in _ON_CONTINENT.items() for code in codes.split()})
"""The continent of each country."""


def jurisdiction_of(country: str) -> str:
    """The jurisdiction that a country belongs to, as the catalog writes it: `EU`, `EEA`, `UK`, `CH`, `US`, `JPN` ...

    Raises:
        InvalidInput: with the nearest spellings.
    """
    require_country(country)
    if country in _EU:
        return "EU"
    return "EEA" if country in _EEA else _NAMED.get(country, country)


def require_country(country: str) -> None:
    """Refuse what is no country's code.

    Raises:
        InvalidInput: with the nearest spellings.
    """
    if country not in CONTINENTS:
        near = difflib.get_close_matches(country.upper()[:8], CONTINENTS, n=3, cutoff=0.5)
        raise InvalidInput(
            f"{country[:20]!r} is no country.",
            hint=f"Did you mean {' or '.join(near)}?" if near else "Write its ISO 3166 code of three letters: NLD.",
        )
